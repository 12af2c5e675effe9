//! What the system calls of a recording do to files, and which answers they send.

use std::path::PathBuf;

use crate::trace::Call;

/// Everything that changes files or sends answers, for strace's `-e`.
pub(crate) const TRACED: &str = "trace=open,openat,creat,close,dup,dup2,dup3,fcntl,lseek,write,writev,pwrite64,\
    pwritev,pwritev2,ftruncate,truncate,fallocate,copy_file_range,sendfile,splice,fsync,fdatasync,sync_file_range,\
    rename,renameat,renameat2,unlink,unlinkat,mkdir,mkdirat,rmdir,link,linkat,symlink,symlinkat,mmap,sendto,sendmsg,\
    bind,listen,io_uring_setup,statx";

/// A system call that matters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    Open {
        path: PathBuf,
        new: bool,
        append: bool,
        truncate: bool,
        fd: u64,
    },
    Close {
        fd: u64,
    },
    /// The descriptor and its copy.
    Duplicate {
        fd: u64,
        copy: u64,
    },
    Seek {
        fd: u64,
        to: u64,
    },
    /// `None`: at the descriptor's position.
    Write {
        fd: u64,
        offset: Option<u64>,
    },
    SetLength {
        fd: u64,
        length: u64,
    },
    Sync {
        fd: u64,
    },
    Rename {
        from: PathBuf,
        to: PathBuf,
    },
    Remove {
        path: PathBuf,
    },
    CreateFolder {
        path: PathBuf,
    },
    CreateSocket {
        path: PathBuf,
    },
    /// The program looked at an open file, and saw its inode number.
    Look {
        fd: u64,
        inode: u64,
    },
    /// Bytes that go to a socket.
    Send,
    /// The program is up.
    Listen,
}

/// Reads a call; `None` if it failed, never returned, or changes nothing. What it cannot replay is a panic.
pub(crate) fn action(call: &Call) -> Option<Action> {
    let arguments = &*call.arguments;
    let result: u64 = call.result.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()?;
    let fd = || number(arguments).unwrap_or(u64::MAX);
    let is_socket = || arguments.split(',').next().is_some_and(|first| !first.contains("</"));
    let path =
        |at: usize| PathBuf::from(String::from_utf8(strings(arguments).swap_remove(at)).expect("UTF-8"));
    Some(match &*call.name {
        "open" | "openat" | "creat" => {
            let flag = |name: &str| arguments.contains(name);
            let (new, append, truncate) = (flag("O_CREAT"), flag("O_APPEND"), flag("O_TRUNC"));
            Action::Open { path: path(0), new, append, truncate, fd: result }
        }
        "close" => Action::Close { fd: fd() },
        "dup" | "dup2" | "dup3" => Action::Duplicate { fd: fd(), copy: result },
        "fcntl" if arguments.contains("F_DUPFD") => Action::Duplicate { fd: fd(), copy: result },
        "lseek" => Action::Seek { fd: fd(), to: result },
        "write" | "writev" if is_socket() => Action::Send,
        "sendto" | "sendmsg" => Action::Send,
        "write" | "writev" => Action::Write { fd: fd(), offset: None },
        "pwrite64" | "pwritev" | "pwritev2" => Action::Write { fd: fd(), offset: Some(last_number(call, 0)) },
        "ftruncate" => Action::SetLength { fd: fd(), length: last_number(call, 0) },
        "fallocate" if arguments.contains(", 0, ") => {
            Action::SetLength { fd: fd(), length: last_number(call, 0) + last_number(call, 1) }
        }
        "fsync" | "fdatasync" => Action::Sync { fd: fd() },
        "rename" | "renameat" | "renameat2" => Action::Rename { from: path(0), to: path(1) },
        "unlink" | "unlinkat" => Action::Remove { path: path(0) },
        "mkdir" | "mkdirat" => Action::CreateFolder { path: path(0) },
        "bind" if arguments.contains("AF_UNIX") => Action::CreateSocket { path: path(0) },
        "listen" => Action::Listen,
        "statx" => {
            let inode = arguments.split_once("stx_ino=").and_then(|(_, rest)| number(rest));
            Action::Look { fd: number(arguments)?, inode: inode.unwrap_or_else(|| panic!("{arguments}")) }
        }
        "mmap" => {
            let shared = arguments.contains("PROT_WRITE") && arguments.contains("MAP_SHARED");
            let harmless = arguments.contains("-shm>") || arguments.contains("MAP_ANONYMOUS");
            assert!(!shared || harmless, "a file is written past the system calls: {arguments}");
            return None;
        }
        "fcntl" | "sync_file_range" | "bind" => return None,
        other => panic!("the recording cannot replay {other}({arguments}) = {}", call.result),
    })
}

/// The bytes that a call wrote.
pub(crate) fn written(call: &Call) -> Vec<u8> {
    let length: usize = call.result.split(' ').next().and_then(|text| text.parse().ok()).expect("a length");
    let mut bytes = strings(&call.arguments).concat();
    // strace cuts what is longer than `-s`; only the preparation of segments writes so much, and it writes zeros.
    let complete = bytes.len() >= length || bytes.iter().all(|byte| *byte == 0);
    assert!(complete, "strace cut a write of {length} bytes");
    bytes.resize(length, 0);
    bytes
}

fn number(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    text.get(..digits)?.parse().ok()
}

/// The last number but so many of the arguments.
fn last_number(call: &Call, but: usize) -> u64 {
    let last = call.arguments.trim_end().trim_end_matches(')').rsplit(", ").nth(but);
    last.and_then(|text| text.trim().parse().ok())
        .unwrap_or_else(|| panic!("{}: {}", call.name, call.arguments))
}

/// The quoted strings in the arguments, with their escapes resolved.
fn strings(arguments: &str) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    let mut rest = arguments;
    while let Some((_, quoted)) = rest.split_once('"') {
        let (string, after) = unquoted(quoted);
        found.push(string);
        rest = after;
    }
    found
}

/// The bytes up to the closing quote, and the text behind it.
fn unquoted(text: &str) -> (Vec<u8>, &str) {
    const ZEROS: &str = r"\0\0\0\0\0\0\0\0";
    let mut string = Vec::new();
    let (mut at, mut quote) = (0, text.find('"').expect("a closing quote"));
    loop {
        let plain = &text[at..quote];
        let Some(escaped) = plain.find('\\') else {
            string.extend_from_slice(plain.as_bytes());
            return (string, &text[quote + 1..]);
        };
        string.extend_from_slice(&plain.as_bytes()[..escaped]);
        at += escaped;
        // Many at once: segments are filled with them.
        while text[at..].starts_with(ZEROS) && !matches!(text.as_bytes()[at + ZEROS.len()], b'0'..=b'7') {
            string.extend_from_slice(&[0; 8]);
            at += ZEROS.len();
        }
        if text.as_bytes()[at] == b'\\' {
            let (byte, length) = escape(&text.as_bytes()[at + 1..]);
            string.push(byte);
            at += 1 + length;
        }
        if at > quote {
            quote = at + text[at..].find('"').expect("a closing quote");
        }
    }
}

/// What follows a backslash: the byte, and how much text it took.
fn escape(text: &[u8]) -> (u8, usize) {
    let octal = text.iter().take(3).take_while(|byte| (b'0'..=b'7').contains(byte)).count();
    if octal > 0 {
        let value = text[..octal].iter().fold(0_u32, |value, digit| value * 8 + u32::from(digit - b'0'));
        return (u8::try_from(value).expect("three octal digits of a byte"), octal);
    }
    let byte = match text[0] {
        b'n' => b'\n',
        b't' => b'\t',
        b'r' => b'\r',
        b'v' => 0x0b,
        b'f' => 0x0c,
        other => other,
    };
    (byte, 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_understood() {
        let text = r#"7 openat(AT_FDCWD</x>, "/d/a.log", O_RDWR|O_CREAT|O_EXCL|O_CLOEXEC, 0600) = 9</d/a.log>
7 pwrite64(9</d/a.log>, "a\n\0\12\"\\\0017", 8, 512) = 8
8 writev(12<socket:[1]>, [{iov_base="HTTP/1.1 200 OK\r\n", iov_len=17}, {iov_base="x", iov_len=1}], 2) = 18
7 rename("/d/a.log", "/d/b.log") = 0
7 mkdir("/d/c", 0777) = -1 EEXIST (File exists)
7 ftruncate(9</d/a.log>, 4096) = 0
7 pwrite64(9</d/a.log>, "\0\0"..., 1024, 0) = 1024
"#;
        let calls = crate::trace::calls(text);
        let actions: Vec<Option<Action>> = calls.iter().map(action).collect();
        let expected = [
            Some(Action::Open { path: "/d/a.log".into(), new: true, append: false, truncate: false, fd: 9 }),
            Some(Action::Write { fd: 9, offset: Some(512) }),
            Some(Action::Send),
            Some(Action::Rename { from: "/d/a.log".into(), to: "/d/b.log".into() }),
            None,
            Some(Action::SetLength { fd: 9, length: 4096 }),
            Some(Action::Write { fd: 9, offset: Some(0) }),
        ];
        assert_eq!(actions, expected);
        assert_eq!(written(&calls[1]), b"a\n\0\n\"\\\x017");
        assert_eq!(written(&calls[2]), b"HTTP/1.1 200 OK\r\nx");
        assert_eq!(written(&calls[6]), [0; 1024]);
    }
}
