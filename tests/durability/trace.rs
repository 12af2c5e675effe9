//! Reads what `strace -f -y -o` wrote: system calls, each with where it began and where it returned, in lines.

use std::collections::BTreeMap;

/// A system call.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) name: String,
    /// Its arguments as far as strace shows them, file names with their descriptors.
    pub(crate) arguments: String,
    pub(crate) result: String,
    /// The line where it began.
    pub(crate) began: usize,
    /// The line where it returned; `None` if it never did.
    pub(crate) returned: Option<usize>,
}

impl Call {
    pub(crate) fn is_sync_of(&self, file: &str) -> bool {
        matches!(&*self.name, "fsync" | "fdatasync") && self.arguments.contains(file)
    }

    pub(crate) fn is_write(&self) -> bool {
        self.name.contains("write") || self.name.starts_with("send")
    }

    /// A successful end, with its line.
    pub(crate) fn succeeded(&self) -> Option<usize> {
        self.returned.filter(|_| self.result.starts_with('0'))
    }
}

/// All calls, in the order in which they began.
pub(crate) fn calls(text: &str) -> Vec<Call> {
    let mut calls: Vec<Call> = Vec::new();
    let mut unfinished: BTreeMap<&str, usize> = BTreeMap::new();
    for (line, content) in text.lines().enumerate() {
        let Some((pid, rest)) = content.split_once(' ') else { continue };
        let rest = rest.trim_start();
        if let Some(resumed) = rest.strip_prefix("<... ") {
            let Some(call) = unfinished.remove(pid).and_then(|at| calls.get_mut(at)) else { continue };
            let resumed = resumed.split_once(" resumed>").map_or(resumed, |(_, rest)| rest);
            let (more, result) = resumed.rsplit_once(" = ").unwrap_or((resumed, "?"));
            call.arguments.push_str(more);
            call.result = result.to_owned();
            // A call that was cut off by the end of its process did not return.
            call.returned = (!result.starts_with('?')).then_some(line);
            continue;
        }
        let Some((name, rest)) = rest.split_once('(') else { continue };
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            continue;
        }
        let (arguments, result, returned) = match rest.strip_suffix("<unfinished ...>") {
            Some(arguments) => {
                unfinished.insert(pid, calls.len());
                (arguments, "?", None)
            }
            None => {
                let (arguments, result) = rest.rsplit_once(" = ").unwrap_or((rest, "?"));
                (arguments, result, (!result.starts_with('?')).then_some(line))
            }
        };
        calls.push(Call {
            name: name.to_owned(),
            arguments: arguments.to_owned(),
            result: result.to_owned(),
            began: line,
            returned,
        });
    }
    calls
}

#[test]
fn calls_that_overlap_are_put_together() {
    let text = "7 write(9</s/segment-0000000001.log>, \"ev1\", 3) = 3\n7 fsync(9</s/segment-0000000001.log> <unfinished ...>\n\
                8 writev(12<socket:[1]>, \"HTTP/1.1 200\", 3) = 3\n7 <... fsync resumed>) = 0\n8 fsync(3</x>) = ?\n";
    let calls = calls(text);
    let shape: Vec<_> = calls.iter().map(|call| (&*call.name, call.began, call.returned)).collect();
    assert_eq!(
        shape,
        [("write", 0, Some(0)), ("fsync", 1, Some(3)), ("writev", 2, Some(2)), ("fsync", 4, None)]
    );
    assert_eq!(calls[1].succeeded(), Some(3));
}
