//! What lines print, in the words that people know from Linux.

mod support;

use support::{Fake, output, shell};

/// Each line in a new shell, and what it prints.
#[test]
fn words_of_linux() {
    for (line, expected) in [
        // Files.
        ("cat /proc/cmdline", "selftest=off init=shell\n"),
        ("cat -u /proc/cmdline", "selftest=off init=shell\n"),
        (
            "cat /proc/nope",
            "cat: /proc/nope: No such file or directory\n",
        ),
        ("cat /proc", "cat: /proc: Is a directory\n"),
        (
            "cat /proc/cmdline/",
            "cat: /proc/cmdline/: Not a directory\n",
        ),
        (
            "cat /proc/cmdline/x",
            "cat: /proc/cmdline/x: Not a directory\n",
        ),
        (
            "cat /nope /proc/cmdline /proc",
            "cat: /nope: No such file or directory\nselftest=off init=shell\ncat: /proc: Is a directory\n",
        ),
        (
            "cat /sys/kernel/mm/hugepages/hugepages-1048576kB/demote",
            "cat: /sys/kernel/mm/hugepages/hugepages-1048576kB/demote: Permission denied\n",
        ),
        (
            "cat -x",
            "cat: invalid option -- 'x'\nTry 'cat --help' for more information.\n",
        ),
        ("cat", ""),
        ("cat /proc/../proc/./cmdline", "selftest=off init=shell\n"),
        ("cat //proc//cmdline", "selftest=off init=shell\n"),
        ("cat proc/cmdline", "selftest=off init=shell\n"),
        (
            "cd /proc; cat cmdline; pwd",
            "selftest=off init=shell\n/proc\n",
        ),
        ("cd /proc/sys/vm/; cd ..; pwd", "/proc/sys\n"),
        (
            "cd /nope; pwd",
            "sh: cd: can't cd to /nope: No such file or directory\n/\n",
        ),
        (
            "cd /proc/cmdline",
            "sh: cd: can't cd to /proc/cmdline: Not a directory\n",
        ),
        // Writing.
        (
            "echo 5 > /proc/sys/vm/nr_hugepages; cat /proc/sys/vm/nr_hugepages",
            "5\n",
        ),
        (
            "echo five > /proc/sys/vm/nr_hugepages",
            "echo: write error: Invalid argument\n",
        ),
        (
            "echo -1 > /proc/sys/vm/nr_hugepages",
            "echo: write error: Invalid argument\n",
        ),
        (
            "echo 2000 > /sys/devices/system/node/node1/hugepages/hugepages-2048kB/nr_hugepages",
            "echo: write error: Cannot allocate memory\n",
        ),
        (
            "echo 1 > /proc/cmdline",
            "echo: write error: Input/output error\n",
        ),
        (
            "echo 1 > /proc/sys/vm/fixed",
            "sh: can't create /proc/sys/vm/fixed: Permission denied\n",
        ),
        (
            "echo 1 > /sys/devices/system/node/online",
            "sh: can't create /sys/devices/system/node/online: Permission denied\n",
        ),
        (
            "echo 1 > /proc/x",
            "sh: can't create /proc/x: nonexistent directory\n",
        ),
        (
            "echo 1 > /sys/x",
            "sh: can't create /sys/x: Permission denied\n",
        ),
        (
            "echo 1 > /sys/kernel/mm/x; echo $?",
            "sh: can't create /sys/kernel/mm/x: Permission denied\n1\n",
        ),
        (
            "echo 1 > /sys/nope/x",
            "sh: can't create /sys/nope/x: nonexistent directory\n",
        ),
        (
            "echo 1 > /nope/x",
            "sh: can't create /nope/x: nonexistent directory\n",
        ),
        (
            "echo 1 > /proc/cmdline/x",
            "sh: can't create /proc/cmdline/x: nonexistent directory\n",
        ),
        ("echo 1 > /proc", "sh: can't create /proc: Is a directory\n"),
        (
            "cat /proc/cmdline > /proc/sys/vm/nr_hugepages",
            "cat: write error: Invalid argument\n",
        ),
        ("cat /proc/many > /dev/null", ""),
        (
            "cat /proc/many > /proc/sys/vm/nr_hugepages",
            "cat: write error: No space left on device\n",
        ),
        ("echo gone > /dev/null", ""),
        ("> /dev/null", ""),
        ("foo 2> /dev/null", ""),
        ("cat /nope > /dev/null 2>&1", ""),
        (
            "cat /nope 2>&1 > /dev/null",
            "cat: /nope: No such file or directory\n",
        ),
        ("cat < /proc/cmdline", "selftest=off init=shell\n"),
        ("cat < /nope", "sh: can't open /nope: no such file\n"),
        // Words and lists.
        ("foo", "sh: foo: not found\n"),
        ("''", "sh: : not found\n"),
        ("", ""),
        ("   # nothing", ""),
        ("echo a#b # c", "a#b\n"),
        ("echo 'a  b' \"c  'd'\" e\\ f", "a  b c  'd' e f\n"),
        ("echo \"a\\\"b\\\\c\\d\"", "a\"b\\c\\d\n"),
        ("echo x''y \"\" z", "xy  z\n"),
        ("echo 'a;b' ; echo c;echo d", "a;b\nc\nd\n"),
        ("echo a \\", "a \\\n"),
        ("echo -n a; echo b", "ab\n"),
        ("echo $ a$ \"$\"", "$ a$ $\n"),
        ("echo", "\n"),
        ("echo -n", ""),
        ("echo 1 >/dev/null 2", ""),
        ("echo a2>/dev/null", ""),
        // Status.
        ("true; echo $?; false; echo $?", "0\n1\n"),
        ("foo; echo \"<$?>\" '$?'", "sh: foo: not found\n<127> $?\n"),
        (
            "cat /nope; echo $?",
            "cat: /nope: No such file or directory\n1\n",
        ),
        (
            "echo x > /proc/x; echo $?",
            "sh: can't create /proc/x: nonexistent directory\n1\n",
        ),
        (
            "echo x > /proc/sys/vm/nr_hugepages; echo $?",
            "echo: write error: Invalid argument\n1\n",
        ),
        ("true && echo yes || echo no", "yes\n"),
        ("false && echo yes || echo no", "no\n"),
        ("false || false || echo third", "third\n"),
        (
            "foo && echo yes; echo always",
            "sh: foo: not found\nalways\n",
        ),
        // Syntax errors.
        ("echo 'a", "sh: syntax error: unterminated quoted string\n"),
        ("echo \"a", "sh: syntax error: unterminated quoted string\n"),
        (
            "echo \"a\\",
            "sh: syntax error: unterminated quoted string\n",
        ),
        ("; echo a", "sh: syntax error: unexpected \";\"\n"),
        ("echo a;; echo b", "sh: syntax error: unexpected \";\"\n"),
        ("echo a |", "sh: syntax error: unexpected newline\n"),
        ("echo a &&", "sh: syntax error: unexpected newline\n"),
        ("echo a;", "a\n"),
        ("| cat", "sh: syntax error: unexpected \"|\"\n"),
        ("echo >", "sh: syntax error: unexpected newline\n"),
        ("echo > ; cat", "sh: syntax error: unexpected \";\"\n"),
        ("sleep 1 &", "sh: syntax error: unexpected \"&\"\n"),
        ("(echo a)", "sh: syntax error: unexpected \"(\"\n"),
        ("echo `pwd`", "sh: syntax error: unexpected \"`\"\n"),
        (
            "echo $HOME",
            "sh: syntax error: no expansion of $HOME: there is only $?\n",
        ),
        (
            "echo \"$(pwd)\"",
            "sh: syntax error: no expansion of $(: there is only $?\n",
        ),
        (
            "echo $'a'",
            "sh: syntax error: no expansion of $': there is only $?\n",
        ),
        (
            "echo 3> /dev/null",
            "sh: syntax error: bad fd number 3: there are 0, 1 and 2\n",
        ),
        (
            "echo >&x",
            "sh: syntax error: bad fd number x: there are 0, 1 and 2\n",
        ),
        // Control flow and variables: nothing of the line runs.
        (
            "while true; do echo a; echo b; done",
            "sh: syntax error: \"while\": this shell has no control flow\n",
        ),
        (
            "echo a; while x; do a; echo 3 > /proc/x; done",
            "sh: syntax error: \"while\": this shell has no control flow\n",
        ),
        (
            "true && if true; then echo a; fi",
            "sh: syntax error: \"if\": this shell has no control flow\n",
        ),
        (
            "echo a | { cat; }",
            "sh: syntax error: \"{\": this shell has no control flow\n",
        ),
        (
            "! true",
            "sh: syntax error: \"!\": this shell has no control flow\n",
        ),
        (
            "echo a; n=3; echo b",
            "sh: syntax error: \"n=3\": this shell has no variables\n",
        ),
        (
            "n=3 echo a",
            "sh: syntax error: \"n=3\": this shell has no variables\n",
        ),
        (
            "echo a; done",
            "sh: syntax error: \"done\": this shell has no control flow\n",
        ),
        ("cat << end", "sh: syntax error: unexpected \"<\"\n"),
        ("f() { echo a; }", "sh: syntax error: unexpected \"(\"\n"),
        ("echo while if n=3", "while if n=3\n"),
        ("'while'", "sh: while: not found\n"),
        ("2=3", "sh: 2=3: not found\n"),
        // Pipes.
        ("echo a | cat", "a\n"),
        ("cat /proc/meminfo | grep Huge | grep -c .", "2\n"),
        (
            "cat /proc/many | grep -c 9999",
            "cat: write error: No space left on device\n2\n",
        ),
        ("cd /proc | pwd; pwd", "/\n/\n"),
        ("false; true | echo $?", "1\n"),
        // Patterns of names.
        (
            "echo /sys/devices/system/node/node*/hugepages/hugepages-2048kB/nr*",
            "/sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages \
             /sys/devices/system/node/node1/hugepages/hugepages-2048kB/nr_hugepages\n",
        ),
        (
            "echo /proc/m[a-e]* /proc/?mdline /proc/[!cm]*",
            "/proc/many /proc/meminfo /proc/cmdline /proc/sys\n",
        ),
        (
            "echo /nope* '/proc/*' /proc/\\*",
            "/nope* /proc/* /proc/*\n",
        ),
        ("cd /proc; echo c* */", "cmdline sys/\n"),
        ("echo /*/many", "/proc/many\n"),
        ("echo a[", "a[\n"),
        ("echo 1 > /proc/*", "sh: /proc/*: ambiguous redirect\n"),
        ("echo 1 > /proc/sys/vm/nr*; cat /proc/sys/vm/nr*", "1\n"),
        // ls.
        ("ls /", "dev  proc  sys\n"),
        ("ls", "dev  proc  sys\n"),
        ("ls /proc | cat", "cmdline\nmany\nmeminfo\nsys\n"),
        ("ls -1 /", "dev\nproc\nsys\n"),
        (
            "ls /x",
            "ls: cannot access '/x': No such file or directory\n",
        ),
        (
            "ls /x; echo $?",
            "ls: cannot access '/x': No such file or directory\n2\n",
        ),
        ("ls /proc/cmdline", "/proc/cmdline\n"),
        ("ls -d /proc", "/proc\n"),
        ("ls -a /", "dev  proc  sys\n"),
        (
            "ls -Y",
            "ls: invalid option -- 'Y'\nTry 'ls --help' for more information.\n",
        ),
        ("ls / -1", "dev\nproc\nsys\n"),
        ("cat --help", "Usage: cat [FILE]...\nshow files\n"),
        ("echo --help", "--help\n"),
        (
            "ls /proc/cmdline /proc/sys /proc/sys/vm",
            "/proc/cmdline\n\n/proc/sys:\nvm\n\n/proc/sys/vm:\nfixed  nr_hugepages\n",
        ),
        (
            "ls -l /sys/kernel/mm/hugepages/hugepages-1048576kB /proc/sys/vm/nr_hugepages",
            "-rw-r--r-- 1 root root    0 Jan  1  1970 /proc/sys/vm/nr_hugepages\n\n\
             /sys/kernel/mm/hugepages/hugepages-1048576kB:\n\
             --w------- 1 root root 4096 Jan  1  1970 demote\n\
             -r--r--r-- 1 root root 4096 Jan  1  1970 free_hugepages\n",
        ),
        (
            "ls -ld /sys",
            "drwxr-xr-x 2 root root    0 Jan  1  1970 /sys\n",
        ),
        // grep.
        (
            "grep Huge /proc/meminfo",
            "HugePages_Total:       0\nHugepagesize:       2048 kB\n",
        ),
        (
            "grep -i hugepages_ /proc/meminfo",
            "HugePages_Total:       0\n",
        ),
        (
            "grep -v Huge /proc/meminfo",
            "MemTotal:        8242104 kB\n",
        ),
        ("grep -c Huge /proc/meminfo", "2\n"),
        (
            "grep -n kB$ /proc/meminfo",
            "1:MemTotal:        8242104 kB\n3:Hugepagesize:       2048 kB\n",
        ),
        ("grep -q Huge /proc/meminfo; echo $?", "0\n"),
        ("grep nothing /proc/meminfo; echo $?", "1\n"),
        (
            "grep x /proc/nope; echo $?",
            "grep: /proc/nope: No such file or directory\n2\n",
        ),
        ("grep -s x /proc/nope; echo $?", "2\n"),
        ("grep x /proc; echo $?", "grep: /proc: Is a directory\n2\n"),
        ("grep self /proc/cmdline -n", "1:selftest=off init=shell\n"),
        (
            "grep . /proc/cmdline /proc/sys/vm/nr_hugepages",
            "/proc/cmdline:selftest=off init=shell\n/proc/sys/vm/nr_hugepages:0\n",
        ),
        (
            "grep -h . /proc/cmdline /proc/sys/vm/nr_hugepages",
            "selftest=off init=shell\n0\n",
        ),
        (
            "grep -H self /proc/cmdline",
            "/proc/cmdline:selftest=off init=shell\n",
        ),
        (
            "grep -r . /sys/kernel/mm/hugepages",
            "grep: /sys/kernel/mm/hugepages/hugepages-1048576kB/demote: Permission denied\n\
             /sys/kernel/mm/hugepages/hugepages-1048576kB/free_hugepages:1048576\n\
             /sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages:2048\n",
        ),
        ("echo abc | grep -c b -", "1\n"),
        (
            "grep",
            "Usage: grep [-cEFhHinqrsv] PATTERN [FILE]...\nTry 'grep --help' for more information.\n",
        ),
        (
            "grep -Z x",
            "grep: invalid option -- 'Z'\nUsage: grep [-cEFhHinqrsv] PATTERN [FILE]...\nTry 'grep --help' for more information.\n",
        ),
        (
            "grep '[a' /proc/cmdline",
            "grep: Unmatched [, [^, [:, [., or [=\n",
        ),
        ("grep 'a\\' /proc/cmdline", "grep: Trailing backslash\n"),
        (
            "grep -E '(a)' /proc/cmdline",
            "grep: groups and counts are not supported in a pattern\n",
        ),
        ("echo -- -v | grep -- -v", "-- -v\n"),
        // The rest.
        ("sleep 0", ""),
        (
            "sleep",
            "sleep: missing operand\nTry 'sleep --help' for more information.\n",
        ),
        (
            "sleep x",
            "sleep: invalid time interval 'x'\nTry 'sleep --help' for more information.\n",
        ),
        (
            "sleep 1 -1",
            "sleep: invalid time interval '-1'\nTry 'sleep --help' for more information.\n",
        ),
        (
            "sleep .",
            "sleep: invalid time interval '.'\nTry 'sleep --help' for more information.\n",
        ),
        (
            "sleep é",
            "sleep: invalid time interval 'é'\nTry 'sleep --help' for more information.\n",
        ),
        ("clear", "\x1b[H\x1b[J"),
        ("help nope", "sh: help: no help topics match `nope'.\n"),
        (
            "help cat",
            "cat [FILE]...                      show files\n",
        ),
    ] {
        assert_eq!(output(line), expected, "{line}");
    }
}

#[test]
fn help_names_every_command() {
    let help = output("help");
    for name in [
        "cat", "cd", "clear", "dmesg", "echo", "false", "grep", "help", "ls", "pwd", "sleep",
        "true",
    ] {
        let line = help.lines().find(|l| l.split(' ').next() == Some(name));
        assert!(line.is_some_and(|l| l.len() > 36), "{name} in {help}");
    }
}

#[test]
fn patterns_of_grep() {
    for (option, pattern, line, expected) in [
        ("", "a.c", "xabcx", true),
        ("", "a.c", "ac", false),
        ("", "^abc$", "abc", true),
        ("", "^abc$", "abcd", false),
        ("", "^bc", "abc", false),
        ("", "bc$", "abcd", false),
        ("", "ab*c", "ac", true),
        ("", "ab*c", "abbbc", true),
        ("", "ab*c", "adc", false),
        ("", "a.*z", "a to z.", true),
        ("", "x*", "", true),
        ("", "*a", "b*a", true),
        ("", "*a", "ba", false),
        ("", "a\\.c", "abc", false),
        ("", "a\\.c", "a.c", true),
        ("", "a^b$c", "a^b$c", true),
        ("", "[a-c]x", "bx", true),
        ("", "[^a-c]x", "bx", false),
        ("", "[]]", "]", true),
        ("", "[a-]", "-", true),
        ("", "a|b", "a", false),
        ("", "a|b", "a|b", true),
        ("", "a\\|b", "b", true),
        ("", "ab\\+$", "abb", true),
        ("", "ab\\?$", "abb", false),
        ("-E", "ab+$", "abb", true),
        ("-E", "ab+$", "a", false),
        ("-E", "ab?$", "a", true),
        ("-E", "^(a", "a", false),
        ("-E", "foo|^bar$", "bar", true),
        ("-E", "foo|^bar$", "bars", false),
        ("-E", "Huge|memmap$|x", "nr_memmap", true),
        ("-E", "a\\|b", "a|b", true),
        ("-F", "a.c", "abc", false),
        ("-F", "a.c*", "xa.c*x", true),
        ("-i", "HuGe", "hUgE", true),
        ("-i", "[A-C]", "b", true),
        ("-i", "[a-c]", "B", true),
        ("", "huge", "Huge", false),
        ("", "é.ü", "éöü", true),
    ] {
        let quoted = line.replace('\'', "");
        let all =
            format!("echo '{quoted}' | grep -q {option} '{pattern}' 2>/dev/null && echo found");
        let found = output(&all) == "found\n";
        assert_eq!(found, expected, "grep {option} {pattern} on {line}");
    }
}

/// Many stars on a long line: no backtracking.
#[test]
fn pattern_takes_no_forever() {
    let line = "a".repeat(3000);
    let started = std::time::Instant::now();
    let pattern = "a*".repeat(20);
    assert_eq!(
        output(&format!("echo {line} | grep -c '{pattern}b'")),
        "0\n"
    );
    assert!(started.elapsed().as_secs() < 5, "{:?}", started.elapsed());
}

/// What a control file gets is what `echo` writes, once.
#[test]
fn one_write_each() {
    let (mut shell, state) = shell();
    let mut host = Fake::default();
    for line in [
        "echo 1 > /proc/sys/vm/nr_hugepages",
        "echo -n 2 > /proc/sys/vm/nr_hugepages",
        "echo 3 >> /proc/sys/vm/nr_hugepages",
        "echo ' 4 5' > /proc/sys/vm/nr_hugepages",
        "echo -n > /proc/sys/vm/nr_hugepages",
        "> /proc/sys/vm/nr_hugepages",
        "echo 6 > /dev/null > /proc/sys/vm/nr_hugepages",
        "cat /proc/sys/vm/nr_hugepages /dev/null > /proc/sys/vm/nr_hugepages",
    ] {
        shell.run_line(line, &mut host);
    }
    assert_eq!(
        state.borrow().written,
        ["1\n", "2", "3\n", " 4 5\n", "6\n", "6\n"]
    );
    assert_eq!(host.printed, "");
}

#[test]
fn sleeps_as_long_as_it_says() {
    for (line, micros) in [
        ("sleep 1", 1_000_000),
        ("sleep 0.25", 250_000),
        ("sleep 1.5 .5s", 2_000_000),
        ("sleep 2m", 120_000_000),
    ] {
        let mut host = Fake::default();
        shell().0.run_line(line, &mut host);
        assert_eq!((host.micros, host.printed.as_str()), (micros, ""), "{line}");
    }
}

#[test]
fn ctrl_c_ends_the_command_and_the_line() {
    let (mut shell, state) = shell();
    let mut host = Fake {
        interrupt_after_lines: Some(3),
        ..Fake::default()
    };
    let go_on = shell.run_line(
        "cat /proc/many; echo 7 > /proc/sys/vm/nr_hugepages",
        &mut host,
    );
    assert!(!go_on);
    assert_eq!(host.printed, "line 0\nline 1\nline 2\n^C\n");
    assert_eq!((shell.status(), state.borrow().nr_hugepages), (130, 0));

    for line in ["sleep 100000d", "sleep 99999999999999999999"] {
        let mut host = Fake {
            interrupt_at: Some(5_000),
            ..Fake::default()
        };
        shell.run_line(line, &mut host);
        assert_eq!(
            (host.micros, host.printed.as_str()),
            (5_000, "^C\n"),
            "{line}"
        );
    }
    // A line that nobody interrupts runs as ever.
    let mut host = Fake::default();
    assert!(shell.run_line("echo $?", &mut host));
    assert_eq!(host.printed, "130\n");
}

/// Wherever the output goes.
#[test]
fn ctrl_c_ends_what_shows_nothing() {
    for line in [
        "cat /proc/many > /dev/null; echo never",
        "cat /proc/many | cat; echo never",
        "grep nothing /proc/many; echo never",
        "grep -c line /proc/many; echo never",
        "grep -q nothing < /proc/many; echo never",
    ] {
        let mut host = Fake {
            interrupt_after_looks: Some(1000),
            ..Fake::default()
        };
        assert!(!shell().0.run_line(line, &mut host), "{line}");
        assert_eq!(host.printed, "^C\n", "{line}");
    }
}

/// A Ctrl-C that found nothing to end does not end the next line.
#[test]
fn old_ctrl_c_is_forgotten() {
    let mut host = Fake {
        interrupt_after_lines: Some(0),
        ..Fake::default()
    };
    shell().0.run_line("echo a; echo b", &mut host);
    assert_eq!(host.printed, "a\nb\n");
}

/// What would take forever, or all memory, is refused.
#[test]
fn too_much_is_refused() {
    let started = std::time::Instant::now();
    let line = format!("echo {}", "/*/..".repeat(800));
    let refused = format!("sh: {}: too many matches\n", &line[5..]);
    assert_eq!(output(&line), refused);
    assert_eq!(output(&format!("{line} || echo $?")), refused + "1\n");
    // Few paths at any time, but each is looked at again and again.
    let line = format!(
        "echo {}{}",
        "/*/..".repeat(6),
        "/proc/sys/*/../../..".repeat(4)
    );
    assert!(output(&line).ends_with(": too many matches\n"));
    let line = format!("echo {}", "/*/*/*/*/* ".repeat(370));
    assert_eq!(output(&line), "sh: echo: Argument list too long\n");
    let line = format!("echo {}*", "x/".repeat(2000));
    assert_eq!(output(&line), line[5..].to_owned() + "\n");
    assert!(started.elapsed().as_secs() < 10, "{:?}", started.elapsed());
}

#[test]
fn dmesg_shows_the_log() {
    let mut host = Fake {
        log: "[    0.000000] one\n[    0.000001] two\n".into(),
        ..Fake::default()
    };
    shell().0.run_line("dmesg | grep two", &mut host);
    assert_eq!(host.printed, "[    0.000001] two\n");
}

#[test]
fn script_echoes_and_goes_on() {
    let (mut shell, _) = shell();
    let mut host = Fake::default();
    let long = "x".repeat(5000);
    let text = format!(
        "# set\x1b[Jup\r\necho 3 > /proc/sys/vm/nr_hugepages\ncat /nope\n\n{long}\ncat /proc/sys/vm/nr_hugepages\nfalse"
    );
    let status = shell.run_script(&text, &mut host);
    assert_eq!(
        host.printed,
        "tailfold# # set?[Jup\ntailfold# echo 3 > /proc/sys/vm/nr_hugepages\n\
         tailfold# cat /nope\ncat: /nope: No such file or directory\ntailfold# \n\
         sh: line 5: longer than 4096 bytes, left out\n\
         tailfold# cat /proc/sys/vm/nr_hugepages\n3\ntailfold# false\n"
    );
    assert_eq!(status, 1);
    let mut host = Fake {
        interrupt_after_lines: Some(3),
        ..Fake::default()
    };
    assert_eq!(shell.run_script("cat /proc/many\necho no", &mut host), 130);
    assert_eq!(
        host.printed,
        "tailfold# cat /proc/many\nline 0\nline 1\n^C\n"
    );
}

/// A line is cut where its commands end, and nowhere else; one that is not understood is refused
/// whole.
#[test]
fn a_line_is_cut_between_commands() {
    for (line, commands) in [
        ("", ""),
        ("echo a; echo b;", "echo a\n echo b\n"),
        (
            "echo 'a;b' \"c;d\" e\\;f; pwd",
            "echo 'a;b' \"c;d\" e\\;f\n pwd",
        ),
        ("echo \"a\\\";b\"; pwd # x; y", "echo \"a\\\";b\"\n pwd "),
        ("echo a#b; pwd", "echo a#b\n pwd"),
        (
            "true && echo a; false || echo b",
            "true && echo a\n false || echo b",
        ),
    ] {
        let text = shell::split_line(line).map_err(|why| why.to_string());
        assert_eq!(text.as_deref(), Ok(commands), "{line}");
    }
    for line in [
        "while x; do a; echo 3 > /proc/x; done",
        "echo a; echo 'b",
        "a;;b",
        "n=1; a",
    ] {
        assert!(shell::split_line(line).is_err(), "{line}");
    }
}
