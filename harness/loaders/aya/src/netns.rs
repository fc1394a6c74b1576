//! Other network namespaces, for as long as a call takes.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// A network namespace, kept open: it can be entered even when its name is gone.
#[derive(Debug)]
pub(crate) struct Namespace {
    file: File,
    /// what it was opened by
    pub(crate) path: String,
}

impl Namespace {
    pub(crate) fn open(path: &str) -> io::Result<Self> {
        Ok(Self {
            file: File::open(path)?,
            path: path.to_owned(),
        })
    }

    /// Enter the namespace until the result is dropped.
    pub(crate) fn enter(&self) -> io::Result<Inside> {
        let own = Self::open("/proc/thread-self/ns/net")?;
        self.set()?;
        Ok(Inside { own })
    }

    fn set(&self) -> io::Result<()> {
        // SAFETY: setns takes two numbers
        match unsafe { libc::setns(self.file.as_raw_fd(), libc::CLONE_NEWNET) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// The stay in another namespace.
#[must_use]
pub(crate) struct Inside {
    own: Namespace,
}

impl Drop for Inside {
    fn drop(&mut self) {
        if let Err(error) = self.own.set() {
            // every later step would happen in the wrong place
            crate::log(&format!("cannot return to the own network namespace: {error}"));
            std::process::abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_is_not_there_has_its_errno() {
        let error = Namespace::open("/nonexistent").expect_err("no such file");
        assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
    }

    #[test]
    fn a_file_that_is_no_namespace_cannot_be_entered() {
        let file = Namespace::open("/proc/self/stat").expect("proc is mounted");
        assert_eq!(
            file.enter().err().and_then(|error| error.raw_os_error()),
            Some(libc::EINVAL)
        );
    }
}
