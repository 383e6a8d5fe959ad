//! Formatted text without an allocator.

use core::fmt;

/// Up to `N` bytes of one line of text; what does not fit is cut off and marked by
/// `...`, and a line break becomes a space.
#[derive(Clone, Copy)]
pub struct Text<const N: usize> {
    bytes: [u8; N],
    len: usize,
    cut: bool,
}

impl<const N: usize> Text<N> {
    const ELLIPSIS: &'static [u8] = b"...";

    /// No text.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            bytes: [0; N],
            len: 0,
            cut: false,
        }
    }

    /// The text that `args` format to.
    #[must_use]
    pub fn of(args: fmt::Arguments<'_>) -> Self {
        let mut text = Self::new();
        // Cannot fail: what does not fit is cut off.
        let _ = fmt::write(&mut text, args);
        text
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        str::from_utf8(&self.bytes[..self.len]).unwrap_or("(not text)")
    }

    fn cut_off(&mut self) {
        self.cut = true;
        let mut keep = self.len.min(N.saturating_sub(Self::ELLIPSIS.len()));
        while keep > 0 && !self.as_str().is_char_boundary(keep) {
            keep -= 1;
        }
        let end = (keep + Self::ELLIPSIS.len()).min(N);
        self.bytes[keep..end].copy_from_slice(&Self::ELLIPSIS[..end - keep]);
        self.len = end;
    }
}

impl<const N: usize> Default for Text<N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const N: usize> fmt::Write for Text<N> {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        if self.cut {
            return Ok(());
        }
        let room = N - self.len;
        let mut take = s.len().min(room);
        while !s.is_char_boundary(take) {
            take -= 1;
        }
        for (to, &from) in self.bytes[self.len..].iter_mut().zip(&s.as_bytes()[..take]) {
            *to = if from == b'\n' { b' ' } else { from };
        }
        self.len += take;
        if take < s.len() {
            self.cut_off();
        }
        Ok(())
    }
}

impl<const N: usize> fmt::Display for Text<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl<const N: usize> fmt::Debug for Text<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

#[cfg(test)]
mod tests {
    use super::Text;
    use core::fmt::Write as _;

    #[test]
    fn keeps_what_fits() {
        assert_eq!(Text::<5>::of(format_args!("{}", 12345)).as_str(), "12345");
    }

    #[test]
    fn stays_one_line() {
        assert_eq!(Text::<9>::of(format_args!("a\nb")).as_str(), "a b");
    }

    #[test]
    fn marks_what_was_cut_and_stays_so() {
        let mut text = Text::<8>::of(format_args!("abcdefghij"));
        assert_eq!(text.as_str(), "abcde...");
        text.write_str("more").unwrap();
        assert_eq!(text.as_str(), "abcde...");
    }

    #[test]
    fn cuts_between_characters() {
        assert_eq!(Text::<8>::of(format_args!("abcdéfgh")).as_str(), "abcd...");
        assert_eq!(Text::<4>::of(format_args!("ééé")).as_str(), "...");
    }

    #[test]
    fn tiny_buffers_do_not_panic() {
        assert_eq!(Text::<0>::of(format_args!("x")).as_str(), "");
        assert_eq!(Text::<2>::of(format_args!("xyz")).as_str(), "..");
    }
}
