//! How different shells and commands word the same error: who speaks, and how it quotes,
//! is no difference between kernels.

/// `output` in words that all shells share.
#[must_use]
pub fn common(output: &str) -> String {
    let lines: Vec<String> = output.lines().map(line).collect();
    lines.join("\n")
}

fn line(line: &str) -> String {
    let line = line.trim_end();
    // busybox: `sh: write error: X`, `echo: write error: X`; dash: `echo: I/O error`.
    if let Some((who, why)) = line.split_once(": write error: ")
        && !who.contains(' ')
    {
        return format!("write error: {why}");
    }
    // busybox: `cat: can't open 'FILE': X`; coreutils: `cat: FILE: X`.
    if let Some((who, rest)) = line.split_once(": can't open '")
        && let Some((file, why)) = rest.split_once("': ")
    {
        return format!("{who}: {file}: {why}");
    }
    line.to_owned()
}

#[cfg(test)]
mod tests {
    use super::common;

    #[test]
    fn who_speaks_is_no_difference() {
        let all = [
            "sh: write error: Invalid argument",
            "echo: write error: Invalid argument",
            "write error: Invalid argument",
        ];
        for text in all {
            assert_eq!(common(text), "write error: Invalid argument");
        }
        assert_eq!(
            common("cat: can't open '/nope': No such file or directory\n1"),
            "cat: /nope: No such file or directory\n1"
        );
    }

    #[test]
    fn what_is_said_is() {
        for text in ["10", "a: b", "sh: can't create /x: nonexistent directory"] {
            assert_eq!(common(text), text);
        }
        assert_ne!(common("sh: write error: A"), common("sh: write error: B"));
    }
}
