//! What an error of the library says: the kernel's number, its words, the verifier's log.

use std::error::Error;
use std::io;
use std::iter::successors;

use aya::BtfError;
use aya::maps::MapError;
use aya::programs::ProgramError;
use aya::programs::xdp::XdpError;
use aya::sys::NetlinkError;
use serde::Serialize;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Stage {
    Open,
    MapCreate,
    Load,
    Attach,
    Detach,
    Lookup,
    Update,
    TestRun,
}

/// A step that was refused.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Failure {
    pub(crate) stage: Stage,
    /// the kernel's number, 0 when it was not asked
    pub(crate) errno: i32,
    /// the program, map or file
    pub(crate) what: String,
    pub(crate) message: String,
    /// the verifier's
    pub(crate) log: String,
}

impl Failure {
    /// Return what an error of the library says.
    pub(crate) fn of(stage: Stage, what: impl Into<String>, error: &(dyn Error + 'static)) -> Self {
        let log = causes(error).find_map(verifier_log).unwrap_or_default();
        Self {
            stage,
            errno: causes(error).find_map(errno).unwrap_or(0),
            what: what.into(),
            message: message(error, &log),
            log,
        }
    }

    /// Return a refusal that did not ask the kernel.
    pub(crate) fn refused(stage: Stage, what: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            stage,
            errno: 0,
            what: what.into(),
            message: message.into(),
            log: String::new(),
        }
    }

    /// Return the refusal of a name that the object does not have.
    pub(crate) fn absent(stage: Stage, kind: &str, name: &str) -> Self {
        Self {
            errno: libc::ENOENT,
            ..Self::refused(stage, name, format!("the object has no {kind} `{name}`"))
        }
    }
}

fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    successors(Some(error), |error| (*error).source())
}

/// Return the kernel's number in one error. A transparent error of aya is not followed by what it wraps in the chain
/// of causes, but by that one's cause: hence the variants that wrap an error of the system.
fn errno(error: &(dyn Error + 'static)) -> Option<i32> {
    if let Some(error) = error.downcast_ref::<io::Error>() {
        return error.raw_os_error();
    }
    if let Some(error) = error.downcast_ref::<NetlinkError>() {
        return error.raw_os_error();
    }
    if let Some(error) = error.downcast_ref::<MapError>() {
        return match error {
            MapError::IoError(error) => error.raw_os_error(),
            _ => None,
        };
    }
    match error.downcast_ref::<ProgramError>()? {
        ProgramError::IOError(error) => error.raw_os_error(),
        ProgramError::NetlinkError(error) | ProgramError::XdpError(XdpError::NetlinkError(error)) => {
            error.raw_os_error()
        }
        ProgramError::MapError(error) => errno(error),
        _ => None,
    }
}

fn verifier_log(error: &(dyn Error + 'static)) -> Option<String> {
    if let Some(BtfError::LoadError { verifier_log, .. }) = error.downcast_ref() {
        return Some(verifier_log.to_string());
    }
    match error.downcast_ref()? {
        ProgramError::LoadError { verifier_log, .. } | ProgramError::Btf(BtfError::LoadError { verifier_log, .. }) => {
            Some(verifier_log.to_string())
        }
        _ => None,
    }
}

/// Join the words of an error and its causes, without the log and without what an error repeats of its cause.
fn message(error: &(dyn Error + 'static), log: &str) -> String {
    let tail = format!(". Verifier output: {log}");
    let mut message = String::new();
    for cause in causes(error) {
        let text = cause.to_string();
        let words = text.strip_suffix(&tail).unwrap_or(&text);
        if message.is_empty() {
            message.push_str(words);
        } else if !message.ends_with(words) {
            message.push_str(": ");
            message.push_str(words);
        }
    }
    message
}

#[cfg(test)]
mod tests {
    use aya::EbpfError;
    use aya::sys::SyscallError;
    use aya_obj::VerifierLog;

    use super::*;

    fn denied() -> io::Error {
        io::Error::from_raw_os_error(libc::EACCES)
    }

    #[test]
    fn the_number_is_found_behind_other_errors() {
        let error = EbpfError::MapError(MapError::CreateError {
            name: "events".into(),
            io_error: denied(),
        });
        let failure = Failure::of(Stage::MapCreate, "events", &error);
        assert_eq!(failure.errno, libc::EACCES);
        assert_eq!(
            failure.message,
            "map error: failed to create map `events`: Permission denied (os error 13)"
        );
        assert_eq!(failure.log, "");
    }

    #[test]
    fn the_number_is_found_in_transparent_errors() {
        let call = || SyscallError {
            call: "bpf_link_create",
            io_error: denied(),
        };
        for error in [
            ProgramError::IOError(denied()),
            ProgramError::SyscallError(call()),
            ProgramError::MapError(MapError::IoError(denied())),
            ProgramError::MapError(MapError::SyscallError(call())),
        ] {
            assert_eq!(Failure::of(Stage::Attach, "p", &error).errno, libc::EACCES, "{error:?}");
        }
    }

    #[test]
    fn the_verifiers_log_is_not_in_the_message() {
        let log = "0: R1=ctx()\nR0 !read_ok\n";
        let error = ProgramError::LoadError {
            io_error: denied(),
            verifier_log: VerifierLog::new(log.into()),
        };
        let failure = Failure::of(Stage::Load, "p", &error);
        assert_eq!(failure.log, log);
        assert_eq!(
            failure.message,
            "the BPF_PROG_LOAD syscall returned Permission denied (os error 13)"
        );
        assert_eq!(failure.errno, libc::EACCES);
    }

    #[test]
    fn an_error_of_the_library_alone_has_no_number() {
        let failure = Failure::of(Stage::Attach, "p", &ProgramError::NotLoaded);
        assert_eq!(
            (failure.errno, failure.message.as_str()),
            (0, "the program is not loaded")
        );
    }

    #[test]
    fn a_name_that_the_object_does_not_have_is_enoent() {
        let failure = Failure::absent(Stage::Lookup, "map", "counts");
        assert_eq!(
            (failure.errno, failure.message.as_str()),
            (2, "the object has no map `counts`")
        );
    }
}
