//! How events lie in a file: one after the other, each with a checksum of its own.
//!
//! A record is four marking bytes, a CRC-32 of all that follows, the document's length, the event's number, the number
//! below which every event is done with (confirmed or dropped), and the document; numbers are little-endian. A record without a document is no
//! event: it only says what is done, and which number comes next. Whatever a file has become, reading it gives the
//! records that are whole and says how many bytes were none.

use crc32fast::hash as crc32;

/// Where a record begins. No JSON document has a zero byte.
const MARK: [u8; 4] = [0xe5, 0x00, b'E', 0x01];
/// Mark, checksum, length, number, and what is done.
pub(super) const HEADER_BYTES: usize = 4 + 4 + 4 + 8 + 8;
/// The first bytes of a file: for people, and for other versions.
pub(super) const TITLE: &[u8] = b"ternwatch outbox 1\n";

/// A record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record<'a> {
    /// The event's number; of a record without a document, the next one's.
    pub(super) sequence: u64,
    /// Every event with a lower number is done with.
    pub(super) done_below: u64,
    /// The document; empty if this is no event.
    pub(super) document: &'a [u8],
}

/// What a file has.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Content<'a> {
    /// Whole records, in their order.
    pub(super) records: Vec<Record<'a>>,
    /// Bytes before and between them that are none.
    pub(super) damaged_bytes: usize,
    /// Bytes after the last of them.
    pub(super) torn_bytes: usize,
}

impl Record<'_> {
    /// Appends the record to a file's bytes.
    pub(super) fn write(&self, to: &mut Vec<u8>) {
        let len = u32::try_from(self.document.len()).expect("a document is far shorter than 4 GiB");
        to.extend(MARK);
        let at = to.len();
        to.extend([0; 4]);
        to.extend(len.to_le_bytes());
        to.extend(self.sequence.to_le_bytes());
        to.extend(self.done_below.to_le_bytes());
        to.extend(self.document);
        let checksum = crc32(&to[at + 4..]);
        to[at..at + 4].copy_from_slice(&checksum.to_le_bytes());
    }
}

/// Finds the records of a file.
pub(super) fn read(file: &[u8]) -> Content<'_> {
    let mut content = Content::default();
    let mut rest = file.strip_prefix(TITLE).unwrap_or(file);
    let mut passed = 0;
    while !rest.is_empty() {
        if let Some((record, after)) = first(rest) {
            content.records.push(record);
            content.damaged_bytes += std::mem::take(&mut passed);
            rest = after;
        } else {
            // The next whole record may begin anywhere.
            rest = &rest[1..];
            passed += 1;
        }
    }
    content.torn_bytes = passed;
    content
}

/// The record that begins here, if one does, and what follows it.
fn first(bytes: &[u8]) -> Option<(Record<'_>, &[u8])> {
    let rest = bytes.strip_prefix(&MARK)?;
    let (checksum, checked) = rest.split_first_chunk::<4>()?;
    let (len, fields) = checked.split_first_chunk::<4>()?;
    let (sequence, fields) = fields.split_first_chunk::<8>()?;
    let (done_below, tail) = fields.split_first_chunk::<8>()?;
    let len = u32::from_le_bytes(*len) as usize;
    let (document, after) = tail.split_at_checked(len)?;
    let checked = &checked[..checked.len() - after.len()];
    if crc32(checked) != u32::from_le_bytes(*checksum) {
        return None;
    }
    let record = Record {
        sequence: u64::from_le_bytes(*sequence),
        done_below: u64::from_le_bytes(*done_below),
        document,
    };
    Some((record, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(sequence: u64, document: &[u8]) -> Record<'_> {
        Record {
            sequence,
            done_below: sequence / 2,
            document,
        }
    }

    fn file(records: &[Record<'_>]) -> Vec<u8> {
        let mut file = TITLE.to_vec();
        records.iter().for_each(|record| record.write(&mut file));
        file
    }

    const DOCUMENTS: [&[u8]; 4] = [b"", b"{\"a\":1}", b"x", b"{\"b\":[1,2,3]}"];

    fn records() -> Vec<Record<'static>> {
        (7..).zip(DOCUMENTS).map(|(n, d)| record(n, d)).collect()
    }

    #[test]
    fn the_checksum_is_the_known_one() {
        // The check value that every catalogue of CRCs gives.
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn a_file_cut_at_any_byte_keeps_the_records_before() {
        let (file, records) = (file(&records()), records());
        for len in TITLE.len()..=file.len() {
            let content = read(&file[..len]);
            let mut end = TITLE.len();
            let whole = records.iter().take_while(|record| {
                end += HEADER_BYTES + record.document.len();
                end <= len
            });
            let whole: Vec<Record<'_>> = whole.copied().collect();
            assert_eq!(content.records, whole, "cut at {len}");
            assert_eq!(content.damaged_bytes, 0);
        }
    }

    #[test]
    fn a_flipped_bit_costs_one_record_at_most() {
        let (file, records) = (file(&records()), records());
        for at in 0..file.len() {
            for bit in 0..8 {
                let mut flipped = file.clone();
                flipped[at] ^= 1 << bit;
                let content = read(&flipped);
                let lost = records.len() - content.records.len();
                assert!(lost <= 1, "{lost} lost by bit {bit} of byte {at}");
                assert!(
                    content
                        .records
                        .iter()
                        .all(|record| records.contains(record))
                );
                assert!(lost == 0 || content.damaged_bytes + content.torn_bytes > 0);
            }
        }
    }

    #[test]
    fn a_length_beyond_the_file_is_no_record() {
        let mut file = file(&[record(1, b"abc")]);
        let at = TITLE.len() + 8;
        file[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(read(&file).records, []);
    }
}
