//! Lines of bounded length.

use std::io::{self, BufRead, Read};

/// The longest line that is read, in bytes: packets and values take two characters a byte and stay far below.
pub(crate) const LONGEST: usize = 8 << 20;

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// without its end
    Whole(Vec<u8>),
    /// read to its end and dropped
    TooLong,
    /// the input ended first: perhaps only a part of what the client meant
    Unfinished,
}

/// Return the next line, None at the end of the input.
pub(crate) fn next(input: &mut impl BufRead, longest: usize) -> io::Result<Option<Line>> {
    let mut line = Vec::new();
    // one byte more for the line's end
    let limit = u64::try_from(longest).map_or(u64::MAX, |longest| longest.saturating_add(1));
    if input.by_ref().take(limit).read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    Ok(Some(if line.last() == Some(&b'\n') {
        line.pop();
        Line::Whole(line)
    } else if line.len() > longest {
        input.skip_until(b'\n')?;
        Line::TooLong
    } else {
        Line::Unfinished
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(mut input: &[u8]) -> Vec<Line> {
        std::iter::from_fn(|| next(&mut input, 4).expect("memory can be read")).collect()
    }

    #[test]
    fn lines_come_without_their_ends() {
        assert_eq!(
            all(b"abcd\n\nef\n"),
            [b"abcd".to_vec(), vec![], b"ef".to_vec()].map(Line::Whole)
        );
    }

    #[test]
    fn a_long_line_is_dropped_to_its_end() {
        assert_eq!(all(b"abcdefghi\nok\n"), [Line::TooLong, Line::Whole(b"ok".to_vec())]);
        assert_eq!(all(b"abcdefghi"), [Line::TooLong]);
    }

    #[test]
    fn a_line_without_end_is_unfinished() {
        assert_eq!(all(b"ab\ncd"), [Line::Whole(b"ab".to_vec()), Line::Unfinished]);
    }
}
