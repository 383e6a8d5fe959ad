//! The last of the log, kept in memory.

/// The last `N` bytes of text written to it.
#[derive(Debug)]
#[doc(alias = "log_buf")]
pub(crate) struct Ring<const N: usize> {
    bytes: [u8; N],
    /// Bytes ever written.
    written: usize,
}

impl<const N: usize> Ring<N> {
    /// Nothing in it.
    pub(crate) const fn new() -> Self {
        Self {
            bytes: [0; N],
            written: 0,
        }
    }

    /// Adds text, over the oldest if there is no room.
    pub(crate) fn write(&mut self, text: &[u8]) {
        // Of more than fits only the end stays.
        let skip = text.len().saturating_sub(N);
        self.written += skip;
        let mut rest = &text[skip..];
        while !rest.is_empty() {
            let at = self.written % N;
            let (now, later) = rest.split_at(rest.len().min(N - at));
            self.bytes[at..at + now.len()].copy_from_slice(now);
            self.written += now.len();
            rest = later;
        }
    }

    /// Calls `f` with the text, oldest first, in one or two pieces.
    pub(crate) fn chunks(&self, mut f: impl FnMut(&[u8])) {
        let at = self.written % N;
        if self.written > N {
            f(&self.bytes[at..]);
        } else if self.written == N {
            f(&self.bytes);
            return;
        }
        f(&self.bytes[..at]);
    }
}
