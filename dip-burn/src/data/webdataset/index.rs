//! The places of the samples of a shard.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek};

use super::headers::{Content, Entry, HeaderError, Headers};

/// Most members of one shard.
const MAX_MEMBERS: usize = 1 << 22;

/// The places of all samples of a shard.
#[derive(Debug, Default)]
pub(super) struct Index {
    pub samples: Vec<SampleIndex>,
    /// True if a part in the middle is broken; what comes after it is not indexed.
    pub broken: bool,
}

/// The members of one sample.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SampleIndex {
    /// Folder and base name up to its first dot; empty in files without names.
    pub stem: Box<str>,
    pub members: Vec<Member>,
}

/// A file of a sample.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Member {
    /// The part of its base name after the first dot, in lower case.
    pub extension: Box<str>,
    /// Where it is; `None` if it cannot be read.
    pub place: Option<Place>,
}

/// Bytes of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub offset: u64,
    pub bytes: u64,
}

impl SampleIndex {
    pub fn member(&self, extension: &str) -> Option<&Member> {
        self.members.iter().find(|m| &*m.extension == extension)
    }

    /// Bytes of all its members.
    pub fn bytes(&self) -> u64 {
        let places = self.members.iter().filter_map(|member| member.place);
        places.fold(0, |sum, place| sum.saturating_add(place.bytes))
    }
}

impl Index {
    /// Indexes a tar by its headers. Members of one stem are one sample, wherever they are; a stem that comes again with an
    /// extension that it had begins another sample.
    ///
    /// # Errors
    /// [`HeaderError`] if the file cannot be read or its first header is broken.
    pub fn of_tar(file: &mut File) -> Result<Self, HeaderError> {
        let length = file.metadata().map_err(HeaderError::Io)?.len();
        let mut index = TarIndex::default();
        let mut headers = Headers::new(file, length);
        loop {
            match headers.next() {
                Ok(None) => break,
                Ok(Some(entry)) if index.members < MAX_MEMBERS => index.add(entry),
                Err(error) if headers.at_start() => return Err(error),
                Err(HeaderError::Io(source)) => return Err(HeaderError::Io(source)),
                Ok(Some(_)) | Err(HeaderError::Broken(_)) => {
                    index.out.broken = true;
                    break;
                }
            }
        }
        index.resolve_links();
        Ok(index.out)
    }

    /// Indexes the objects of a JSON array, or the lines of JSON Lines.
    ///
    /// # Errors
    /// The error of the file.
    pub fn of_json(file: &mut File) -> std::io::Result<Self> {
        file.rewind()?;
        let mut reader = BufReader::with_capacity(1 << 20, file);
        let first = reader.fill_buf()?;
        let first = first.strip_prefix(b"\xef\xbb\xbf").unwrap_or(first).trim_ascii_start();
        match first.first() {
            Some(b'[') => Self::of_array(reader),
            _ => Self::of_lines(reader),
        }
    }

    fn of_lines(mut reader: BufReader<&mut File>) -> std::io::Result<Self> {
        let mut out = Self::default();
        let (mut offset, mut start, mut blank) = (0u64, 0u64, true);
        loop {
            let bytes = reader.fill_buf()?;
            if bytes.is_empty() {
                break;
            }
            for &byte in bytes {
                if byte == b'\n' {
                    if !blank && !out.push_json(start, offset) {
                        return Ok(out);
                    }
                    (start, blank) = (offset + 1, true);
                } else {
                    blank &= byte.is_ascii_whitespace();
                }
                offset += 1;
            }
            let read = bytes.len();
            reader.consume(read);
        }
        if !blank {
            out.push_json(start, offset);
        }
        Ok(out)
    }

    /// The places of the elements of an array, found by brackets and quotes only.
    fn of_array(reader: BufReader<&mut File>) -> std::io::Result<Self> {
        let mut out = Self::default();
        let (mut depth, mut quoted, mut escaped) = (0u32, false, false);
        let mut start = None;
        for (offset, byte) in (0u64..).zip(reader.bytes()) {
            let byte = byte?;
            if quoted {
                (quoted, escaped) = (escaped || byte != b'"', !escaped && byte == b'\\');
                continue;
            }
            if depth == 1 && start.is_none() && !byte.is_ascii_whitespace() && byte != b']' {
                start = Some(offset);
            }
            match byte {
                b'"' => quoted = true,
                b'[' | b'{' => depth += 1,
                b']' | b'}' => depth = depth.saturating_sub(1),
                _ => {}
            }
            let ends = (depth == 1 && byte == b',') || depth == 0;
            if ends
                && let Some(start) = start.take()
                && !out.push_json(start, offset)
            {
                return Ok(out);
            }
            if depth == 0 && byte == b']' {
                return Ok(out);
            }
        }
        out.broken = true;
        Ok(out)
    }

    /// Adds a sample of a JSON file; false if there are too many.
    fn push_json(&mut self, start: u64, end: u64) -> bool {
        if self.samples.len() == MAX_MEMBERS {
            self.broken = true;
            return false;
        }
        let place = Place { offset: start, bytes: end - start };
        let member = Member { extension: "json".into(), place: Some(place) };
        self.samples.push(SampleIndex { stem: "".into(), members: vec![member] });
        true
    }
}

#[derive(Default)]
struct TarIndex {
    out: Index,
    members: usize,
    /// The newest sample of every stem.
    by_stem: HashMap<Box<str>, usize>,
    links: Vec<Link>,
}

/// A link to another member.
struct Link {
    sample: usize,
    member: usize,
    target: String,
}

impl TarIndex {
    fn add(&mut self, Entry { name, content }: Entry) {
        self.members += 1;
        let Some((stem, extension)) = split_name(&name) else { return };
        let known = self.by_stem.get(stem).copied();
        let is_new = |&sample: &usize| self.out.samples[sample].member(&extension).is_none();
        let sample = known.filter(is_new).unwrap_or_else(|| {
            let stem: Box<str> = stem.into();
            self.out.samples.push(SampleIndex { stem: stem.clone(), members: Vec::new() });
            self.by_stem.insert(stem, self.out.samples.len() - 1);
            self.out.samples.len() - 1
        });
        let members = &mut self.out.samples[sample].members;
        let place = match content {
            Content::Here { offset, bytes } => Some(Place { offset, bytes }),
            Content::Sparse => None,
            Content::Link(target) => {
                let target = beside(&name, &target);
                self.links.push(Link { sample, member: members.len(), target });
                None
            }
        };
        members.push(Member { extension: extension.into(), place });
    }

    /// Gives links the place of their target. A target that is not in the tar, or is a link itself, leaves the member unreadable.
    fn resolve_links(&mut self) {
        for Link { sample, member, target } in std::mem::take(&mut self.links) {
            let place = split_name(&target).and_then(|(stem, extension)| {
                let sample = *self.by_stem.get(stem)?;
                self.out.samples[sample].member(&extension)?.place
            });
            self.out.samples[sample].members[member].place = place;
        }
    }
}

/// The path in the tar that a link names: hard links name it whole, symbolic links often from their own folder.
fn beside(name: &str, target: &str) -> String {
    let folder = name.rfind('/').map_or("", |slash| &name[..=slash]);
    match target.contains('/') || folder.is_empty() {
        true => target.trim_start_matches("./").to_owned(),
        false => format!("{folder}{target}"),
    }
}

/// Stem and extension of a member; `None` for hidden files and names without a dot.
fn split_name(name: &str) -> Option<(&str, String)> {
    let base = name.rfind('/').map_or(0, |slash| slash + 1);
    let dot = base + name[base..].find('.')?;
    (dot > base).then(|| (&name[..dot], name[dot + 1..].to_ascii_lowercase()))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_name_is_split_at_the_first_dot_of_its_base() {
        assert_eq!(split_name("a.b/c.0.PNG").unwrap(), ("a.b/c", "0.png".into()));
        assert_eq!(split_name("a.b/c"), None);
        assert_eq!(split_name("a/.hidden"), None);
    }

    #[test]
    fn elements_of_arrays_and_lines_are_found() {
        let elements = |text: &str| {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(text.as_bytes()).unwrap();
            let index = Index::of_json(&mut file).unwrap();
            let place = |s: &SampleIndex| s.members[0].place.unwrap();
            let part = |p: Place| text[p.offset as usize..][..p.bytes as usize].trim().to_owned();
            let parts: Vec<String> = index.samples.iter().map(|s| part(place(s))).collect();
            (parts, index.broken)
        };
        let (parts, broken) = elements("\u{feff} [ {\"a\": \"],\\\"\"}, [1,2],3 ] ");
        assert_eq!(
            (parts, broken),
            (vec!["{\"a\": \"],\\\"\"}".into(), "[1,2]".into(), "3".into()], false)
        );
        assert_eq!(elements("[]"), (vec![], false));
        assert_eq!(elements("[{}, {\"a\""), (vec!["{}".into()], true));
        assert_eq!(elements("{}\r\n\n {\"a\":1}"), (vec!["{}".into(), "{\"a\":1}".into()], false));
    }
}
