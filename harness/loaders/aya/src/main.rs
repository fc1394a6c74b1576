//! Load eBPF objects with aya for a client that asks for every step: see `../PROTOCOL.md`.
//!
//! Nothing here knows an object or a program by name. What a module is for:
//!
//! - `lines`, `protocol`: what goes over the pipes
//! - `session`: the open objects, links and rings, and the answer to each request
//! - `programs`, `maps`, `netns`: the calls into the library
//! - `failure`: what a library's error says, as the protocol has it

mod failure;
mod lines;
mod maps;
mod netns;
mod programs;
mod protocol;
mod session;

use std::io::{self, BufRead, Write};
use std::process::ExitCode;

use lines::Line;
use protocol::{Hello, Reply, Request};
use session::Session;

/// Answer requests until the input ends; raise the error of a pipe that cannot be read or written.
fn serve(mut input: impl BufRead, mut output: impl Write, session: &mut Session) -> io::Result<()> {
    send(&mut output, &Hello::default())?;
    while let Some(line) = lines::next(&mut input, lines::LONGEST)? {
        send(&mut output, &answer(&line, session))?;
    }
    Ok(())
}

fn answer(line: &Line, session: &mut Session) -> Reply {
    match line {
        Line::Whole(line) => match Request::parse(line) {
            Ok(request) => session.answer(request),
            Err(reply) => reply,
        },
        Line::TooLong => Reply::malformed(None, format!("the line is longer than {} bytes", lines::LONGEST)),
        Line::Unfinished => Reply::malformed(None, "the input ends inside a line"),
    }
}

fn send(output: &mut impl Write, message: &impl serde::Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    output.write_all(&line)?;
    output.flush()
}

/// Write to stderr; `eprintln!` would panic where the client has closed that, too.
fn log(message: &str) {
    let _ = writeln!(io::stderr(), "aya-loader: {message}");
}

fn main() -> ExitCode {
    let mut session = Session::default();
    let served = serve(io::stdin().lock(), io::stdout().lock(), &mut session);
    let failures = session.close_all();
    for failure in &failures {
        log(&format!("{}: {}", failure.what, failure.message));
    }
    match served {
        Err(error) => log(&format!("the client's pipes: {error}")),
        Ok(()) if failures.is_empty() => return ExitCode::SUCCESS,
        Ok(()) => {}
    }
    ExitCode::FAILURE
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// Return the replies to the input, without the first line.
    fn replies(input: &[u8]) -> Vec<Value> {
        let mut output = Vec::new();
        serve(input, &mut output, &mut Session::default()).expect("memory can be read and written");
        let mut lines = output
            .split(|byte| *byte == b'\n')
            .map(<[u8]>::to_vec)
            .collect::<Vec<_>>();
        assert_eq!(lines.pop(), Some(vec![]), "the last line ends, too");
        lines.remove(0);
        lines
            .iter()
            .map(|line| serde_json::from_slice(line).expect("a reply is JSON"))
            .collect()
    }

    #[test]
    fn the_first_line_is_written_unasked() {
        let mut output = Vec::new();
        serve(&b""[..], &mut output, &mut Session::default()).expect("memory can be written");
        let hello: Value = serde_json::from_slice(&output).expect("JSON");
        assert_eq!(hello, json!({"protocol": 1, "loader": "aya", "version": "0.14.0"}));
    }

    #[test]
    fn replies_come_in_the_order_of_the_requests() {
        let input = br#"{"id": 9, "do": "consume", "ring": 1}
{"id": 3, "do": "open", "path": "/nonexistent/a.o", "max_entries": {}}

{"id": 5, "do": "detach", "link": 1}
"#;
        let replies = replies(input);
        let ids: Vec<_> = replies.iter().map(|reply| reply["id"].clone()).collect();
        assert_eq!(ids, [json!(9), json!(3), json!(null), json!(5)]);
        assert_eq!(replies[1]["error"]["stage"], "open");
    }

    #[test]
    fn a_line_that_is_too_long_is_malformed_and_the_next_answered() {
        let mut input = vec![b'x'; lines::LONGEST + 1];
        input.extend(b"\n{\"id\": 2, \"do\": \"detach\", \"link\": 7}\n");
        let replies = replies(&input);
        assert_eq!(
            replies[0]["malformed"],
            format!("the line is longer than {} bytes", lines::LONGEST)
        );
        assert_eq!(replies[1], json!({"id": 2, "malformed": "no link 7"}));
    }

    #[test]
    fn a_request_without_its_line_end_is_not_done() {
        let replies = replies(br#"{"id": 1, "do": "detach", "link": 7}"#);
        assert_eq!(
            replies,
            [json!({"id": null, "malformed": "the input ends inside a line"})]
        );
    }

    #[test]
    fn a_closed_output_is_an_error() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::Error::from_raw_os_error(libc::EPIPE))
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let error = serve(&b""[..], Closed, &mut Session::default()).expect_err("nobody reads");
        assert_eq!(error.raw_os_error(), Some(libc::EPIPE));
    }
}
