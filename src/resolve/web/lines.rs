//! Lines of a stream that arrives in pieces.

/// Puts lines together, wherever they were cut.
#[derive(Debug)]
pub(in crate::resolve) struct Lines {
    buffer: Vec<u8>,
    /// Up to where there is no end of a line.
    searched: usize,
    largest: usize,
}

/// A line longer than it may be.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::resolve) struct TooLong;

impl Lines {
    pub(in crate::resolve) fn new(largest: usize) -> Self {
        Self { buffer: Vec::new(), searched: 0, largest }
    }

    /// Takes a piece, and tells the lines that it completes, without the empty ones.
    pub(in crate::resolve) fn push(&mut self, piece: &[u8]) -> Result<Vec<Vec<u8>>, TooLong> {
        self.buffer.extend_from_slice(piece);
        let mut lines = Vec::new();
        let mut start = 0;
        while let Some(length) = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n') {
            let end = self.searched + length;
            let line = self.buffer[start..end].trim_ascii();
            if !line.is_empty() {
                lines.push(line.to_vec());
            }
            start = end + 1;
            self.searched = start;
        }
        self.buffer.drain(..start);
        self.searched = self.buffer.len();
        if self.buffer.is_empty() {
            // A large line is rare, and its memory is not kept for the small ones.
            self.buffer.shrink_to(64 << 10);
        }
        if self.buffer.len() > self.largest { Err(TooLong) } else { Ok(lines) }
    }
}

#[cfg(all(test, not(mainstay_loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_line_without_an_end_is_not_kept_for_ever() {
        let mut lines = Lines::new(10);
        assert_eq!(lines.push(b"01234\n56789"), Ok(vec![b"01234".to_vec()]));
        assert_eq!(lines.push(b"0123456"), Err(TooLong));
    }

    proptest! {
        #[test]
        fn lines_are_the_same_wherever_the_stream_is_cut(
            text in "[a-zé€\n\r ]{0,60}",
            cuts in proptest::collection::vec(0_usize..80, 0..8),
        ) {
            let whole: Vec<Vec<u8>> = format!("{text}\n")
                .as_bytes()
                .split(|byte| *byte == b'\n')
                .map(|line| line.trim_ascii().to_vec())
                .filter(|line| !line.is_empty())
                .collect();
            let bytes = format!("{text}\n").into_bytes();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let mut lines = Lines::new(1000);
            let mut told = Vec::new();
            for pair in cuts.windows(2) {
                told.extend(lines.push(&bytes[pair[0]..pair[1]]).unwrap());
            }
            prop_assert_eq!(told, whole);
        }
    }
}
