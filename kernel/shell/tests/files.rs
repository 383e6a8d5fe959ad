//! The registry of control files, and numbers as Linux reads them.

mod support;

use shell::{Errno, Files, Node, kstrtoul, normalise, sysctl_bool, sysctl_ulong};
use support::{Shared, files};

#[test]
fn numbers_of_sysfs() {
    for (text, base, expected) in [
        ("0\n", 10, Ok(0)),
        ("128", 10, Ok(128)),
        ("+5\n", 10, Ok(5)),
        ("010\n", 10, Ok(10)),
        ("18446744073709551615\n", 10, Ok(u64::MAX)),
        ("18446744073709551616\n", 10, Err(Errno::ERANGE)),
        ("99999999999999999999999999\n", 10, Err(Errno::ERANGE)),
        ("99999999999999999999999999x\n", 10, Err(Errno::EINVAL)),
        ("", 10, Err(Errno::EINVAL)),
        ("\n", 10, Err(Errno::EINVAL)),
        ("5\n\n", 10, Err(Errno::EINVAL)),
        (" 5\n", 10, Err(Errno::EINVAL)),
        ("5 \n", 10, Err(Errno::EINVAL)),
        ("-5\n", 10, Err(Errno::EINVAL)),
        ("++5\n", 10, Err(Errno::EINVAL)),
        ("5x\n", 10, Err(Errno::EINVAL)),
        ("0x10\n", 10, Err(Errno::EINVAL)),
        ("0x10\n", 0, Ok(16)),
        ("0X1f\n", 16, Ok(31)),
        ("1f\n", 16, Ok(31)),
        ("010\n", 0, Ok(8)),
        ("08\n", 0, Err(Errno::EINVAL)),
        ("0x\n", 0, Err(Errno::EINVAL)),
        ("0\n", 0, Ok(0)),
        ("٣\n", 10, Err(Errno::EINVAL)),
    ] {
        assert_eq!(kstrtoul(text, base), expected, "{text:?} in base {base}");
    }
}

#[test]
fn numbers_of_sysctl() {
    for (text, expected) in [
        ("5\n", Ok(5)),
        ("  5\n", Ok(5)),
        ("5 7\n", Ok(5)),
        ("5\t\n", Ok(5)),
        ("0x10\n", Ok(16)),
        ("010\n", Ok(8)),
        ("5", Ok(5)),
        ("5x\n", Err(Errno::EINVAL)),
        ("-5\n", Err(Errno::EINVAL)),
        ("+5\n", Err(Errno::EINVAL)),
        ("\n", Err(Errno::EINVAL)),
        ("five\n", Err(Errno::EINVAL)),
        ("18446744073709551616\n", Err(Errno::EINVAL)),
    ] {
        assert_eq!(sysctl_ulong(text), expected, "{text:?}");
    }
    for (text, expected) in [
        ("0\n", Ok(false)),
        (" -0x0 1\n", Ok(false)),
        ("2\n", Ok(true)),
        ("-1\n", Ok(true)),
        ("--1\n", Err(Errno::EINVAL)),
        ("- 1\n", Err(Errno::EINVAL)),
        ("on\n", Err(Errno::EINVAL)),
    ] {
        assert_eq!(sysctl_bool(text), expected, "{text:?}");
    }
}

#[test]
fn paths() {
    for (from, path, expected) in [
        ("/", "/a/b", "/a/b"),
        ("/x", "/a", "/a"),
        ("/x", "a", "/x/a"),
        ("/x/y", "..", "/x/"),
        ("/x/y", "../a", "/x/a"),
        ("/", "../../..", "/"),
        ("/", ".", "/"),
        ("/x", "./a//b/./c", "/x/a/b/c"),
        ("/x", "a/", "/x/a/"),
        ("/", "", "/"),
        ("/x", "a/.", "/x/a/"),
        ("/x", "a.", "/x/a."),
        ("/x", "/", "/"),
    ] {
        assert_eq!(normalise(from, path), expected, "{path} from {from}");
    }
}

fn names(files: &Files<'_>, path: &str) -> Result<Vec<String>, Errno> {
    let entries = files.list(path)?.into_iter();
    Ok(entries
        .map(|entry| entry.name + if entry.mode.is_none() { "/" } else { "" })
        .collect())
}

#[test]
fn directories_follow_from_paths() {
    let files = files(&Shared::default());
    for (path, expected) in [
        ("/", Ok(&["dev/", "proc/", "sys/"][..])),
        ("/proc/sys/", Ok(&["vm/"])),
        (
            "/sys/devices/system/node",
            Ok(&["node0/", "node1/", "online"]),
        ),
        (
            "/sys/devices/system/node/node1/hugepages",
            Ok(&["hugepages-1048576kB/", "hugepages-2048kB/"]),
        ),
        (
            "/sys/kernel/mm/hugepages/hugepages-1048576kB",
            Ok(&["demote", "free_hugepages"]),
        ),
        (
            "/sys/kernel/mm/hugepages/hugepages-2048kB",
            Ok(&["free_hugepages"]),
        ),
        ("/sys/devices/system/node/node2", Err(Errno::ENOENT)),
        ("/sys/devices/system/node/node01", Err(Errno::ENOENT)),
        ("/sys/devices/system/node/node", Err(Errno::ENOENT)),
        ("/sys/devices/system/node/node+1", Err(Errno::ENOENT)),
        (
            "/sys/devices/system/node/node1/hugepages/hugepages-4kB",
            Err(Errno::ENOENT),
        ),
        ("/sys/devices/system/node/online", Err(Errno::ENOTDIR)),
        ("/sys/devices/system/node/online/x", Err(Errno::ENOTDIR)),
        ("/nope", Err(Errno::ENOENT)),
    ] {
        let expected = expected.map(|names| names.iter().map(|n| (*n).to_owned()).collect());
        assert_eq!(names(&files, path), expected, "{path}");
    }
}

/// Every file that can be reached by listing is found by its path, and the other way round.
#[test]
fn every_listed_path_resolves() {
    let files = files(&Shared::default());
    let mut found = Vec::new();
    let mut rest = vec![String::new()];
    while let Some(path) = rest.pop() {
        match files.resolve(&path) {
            Ok(Node::Directory) => {
                let entries = files.list(&path).unwrap();
                rest.extend(entries.into_iter().map(|e| format!("{path}/{}", e.name)));
            }
            Ok(Node::File(_)) => found.push(path),
            Err(why) => panic!("{path}: {why}"),
        }
    }
    assert_eq!(found.len(), 14, "{found:#?}");
    assert_eq!(files.iter().count(), 10);
}

#[test]
fn a_value_that_goes_away_takes_its_files_along() {
    let nodes = core::cell::Cell::new(3);
    let mut files = Files::new();
    files.parameter("node", |each| (0..nodes.get()).for_each(each));
    files.read_only("/node{node}/meminfo", |_, _| Ok(()));
    assert!(files.resolve("/node2/meminfo").is_ok());
    nodes.set(2);
    assert_eq!(names(&files, "/").unwrap(), ["dev/", "node0/", "node1/"]);
    assert_eq!(files.resolve("/node2/meminfo").err(), Some(Errno::ENOENT));
}

#[test]
fn parameters_come_in_the_order_of_the_path() {
    let files = files(&Shared::default());
    let path = "/sys/devices/system/node/node1/hugepages/hugepages-1048576kB/nr_hugepages";
    let Ok(Node::File(file)) = files.resolve(path) else {
        panic!("it is there");
    };
    assert!(format!("{file:?}").ends_with("[1, 1048576])"), "{file:?}");
}

#[test]
#[should_panic(expected = "/a/{nope} is no path of known parameters")]
fn unknown_parameter() {
    Files::new().read_only("/a/{nope}", |_, _| Ok(()));
}

#[test]
#[should_panic(expected = "proc/x is no path")]
fn relative_path() {
    Files::new().read_only("proc/x", |_, _| Ok(()));
}

/// Where Linux runs the tests, its own files say what these numbers are called.
#[test]
fn errors_have_the_words_of_the_host() {
    for errno in [
        Errno::EPERM,
        Errno::ENOENT,
        Errno::EINTR,
        Errno::EIO,
        Errno::EAGAIN,
        Errno::ENOMEM,
        Errno::EACCES,
        Errno::EBUSY,
        Errno::ENOTDIR,
        Errno::EISDIR,
        Errno::EINVAL,
        Errno::ENOSPC,
        Errno::ERANGE,
        Errno::EOPNOTSUPP,
    ] {
        let number = i32::from(errno.number());
        let theirs = std::io::Error::from_raw_os_error(number).to_string();
        assert_eq!(format!("{errno} (os error {number})"), theirs);
    }
}
