//! Folders of segments.

use dt_receiver_fuzz::segments::{self, group};

use crate::Seeds;

/// Folders of segments. Their groups get their checksums in the target.
pub fn folders() -> Seeds {
    /// The first bytes of a group that is damaged: it has a checksum, and that is wrong.
    fn damaged(mut group: Vec<u8>) -> Vec<u8> {
        group[4] ^= 0xff;
        group
    }
    let sink: &[u8] = &[1, 4, b'f', b'i', b'l', b'e', 0, 0, 0, 0, 0];
    // No sinks, the next one is 1, segment 1 is needed, no letters, no connectors.
    let empty: &[u8] = &[6, 0, 1, 1, 0, 0];
    let with_sink: &[u8] = &[&[6, 1][..], sink, &[2, 1, 6, 0]].concat();
    let registered: &[u8] = &[&[2][..], sink].concat();
    // For sink 1, received at 100, of the connector `c`, by `secret:s`, and no more than has to be.
    let event = |id: u8| -> Vec<u8> {
        let texts: &[u8] = b"\x01c\x08secret:s";
        [
            &[0, 4, 1, 0, 0, 0, 200, 1][..],
            texts,
            &[1, id],
            b"\x05touch",
            &[0, 0, 0, 2],
            b"[]",
            &[2],
            b"[]",
            &[2],
            b"{}",
        ]
        .concat()
    };
    let (a, b, c) = (event(b'a'), event(b'b'), event(b'c'));
    let (a, b, c): (&[u8], &[u8], &[u8]) = (&a, &b, &c);
    let whole = [group(1, &[empty]), group(1, &[registered]), group(1, &[a, b]), group(3, &[c])].concat();
    let sealed = [&whole[..], &group(4, &[])].concat();
    let hole = [group(1, &[empty]), damaged(group(1, &[a])), group(2, &[b]), group(3, &[c])].concat();
    let torn = [&whole[..], &group(4, &[a])[..30]].concat();
    let cursor = [&whole[..], &group(4, &[&[1, 1, 4, 0, 0], &[5, 1]])].concat();
    let skipped = [group(1, &[empty]), group(1, &[&[7, 20]]), group(10, &[a])].concat();
    let next = [group(3, &[with_sink]), group(3, &[b, c])].concat();
    let gap = [group(9, &[with_sink]), group(9, &[a])].concat();
    let no_snapshot = group(1, &[a]);
    let no_length = [&b"DTgr\0\0\0\0\0\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0"[..], empty].concat();
    let folder = |marked: u8, segments: &[(u8, u8, u8, &[u8])]| {
        let mut seed = vec![marked];
        for (number, flags, first_seq, groups) in segments {
            segments::write(&mut seed, *number, *flags, *first_seq, groups);
        }
        seed
    };
    let committed = include_bytes!("../../../tests/spools/v2/segment-0000000001.log");
    let used = committed.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let seeds: [(&str, Vec<u8>); 17] = [
        ("committed", folder(1, &[(1, 0, 1, &committed[512..used])])),
        ("whole", folder(1, &[(1, 0, 1, &whole)])),
        ("sealed", folder(1, &[(1, 0, 1, &sealed)])),
        ("hole", folder(1, &[(1, 0, 1, &hole)])),
        ("torn", folder(1, &[(1, 0, 1, &torn)])),
        ("short", folder(1, &[(1, 0, 1, &whole), (2, 2, 3, &next)])),
        ("cursor", folder(1, &[(1, 0, 1, &cursor)])),
        ("skipped", folder(1, &[(1, 0, 1, &skipped)])),
        ("next_makes_void", folder(2, &[(1, 0, 1, &whole), (2, 0, 3, &next)])),
        ("hole_before_next", folder(2, &[(1, 0, 1, &hole), (2, 0, 3, &next)])),
        ("gap", folder(0, &[(1, 0, 1, &whole), (2, 0, 9, &gap)])),
        ("no_snapshot", folder(0, &[(1, 0, 1, &no_snapshot)])),
        ("no_length", folder(0, &[(1, 0, 1, &no_length)])),
        ("damaged_header", folder(2, &[(1, 1, 1, &whole), (2, 0, 3, &next)])),
        ("foreign", folder(2, &[(1, 4, 1, &whole), (2, 0, 3, &next)])),
        ("newer", folder(2, &[(1, 0, 1, &whole), (2, 8, 3, &next)])),
        ("missing", folder(5, &[(2, 0, 3, &next), (4, 0, 9, &gap)])),
    ];
    seeds.into_iter().map(|(name, seed)| (name.to_owned(), seed)).collect()
}
