//! TensorBoard event files: protobuf `Event` messages in TFRecord frames.
//!
//! Only the few fields that scalars, pictures and texts need are encoded. TensorFlow's `event.proto`, `summary.proto` and `record_writer` define the
//! formats.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crc::{CRC_32_ISCSI, Crc};
use image::{ImageFormat, RgbImage};

use super::{MetricSink, SinkError, samples, scalars};
use crate::checkpoint::CheckpointError;
use crate::train::report::{Caption, Evaluation, IterationReport};

/// CRC-32C, also called Castagnoli or iSCSI.
const CRC_32C: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);

/// Most files that are created in one folder within a second.
const MAX_FILES_PER_SECOND: u32 = 1000;

/// The scalars of a run, its captions and its sampled clips as TensorBoard event files.
pub struct TensorBoard {
    folder: PathBuf,
    /// Open once the run has started.
    file: Option<EventFile>,
}

impl TensorBoard {
    /// Event files in `folder`.
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), file: None }
    }

    fn write(&mut self, step: u64, scalars: &[(String, f64)]) -> Result<(), SinkError> {
        let Some(file) = &mut self.file else { return Ok(()) };
        Ok(file.scalars(step, scalars).map_err(|e| CheckpointError::io(file.path())(e))?)
    }
}

impl MetricSink for TensorBoard {
    fn start(&mut self, iteration: u64) -> Result<(), SinkError> {
        // A step is a number of completed iterations. The evaluation after the last completed iteration stays.
        let file = EventFile::create(&self.folder, iteration + 1);
        self.file = Some(file.map_err(CheckpointError::io(&self.folder))?);
        Ok(())
    }

    fn iteration(&mut self, report: &IterationReport) -> Result<(), SinkError> {
        self.write(report.iteration + 1, &scalars::of_iteration(report))
    }

    fn evaluation(&mut self, evaluation: &Evaluation) -> Result<(), SinkError> {
        let step = evaluation.iteration;
        self.write(step, &scalars::of_evaluation(evaluation))?;
        let Some(file) = &mut self.file else { return Ok(()) };
        let io = CheckpointError::io(file.path());
        if !evaluation.captions.is_empty() {
            file.text(step, "evaluation/captions", &captions(evaluation)).map_err(&io)?;
        }
        if let Some(sheet) = samples::sheet(&evaluation.samples) {
            file.picture(step, "evaluation/samples", &sheet).map_err(&io)?;
        }
        Ok(())
    }
}

/// Captions as a Markdown table.
fn captions(evaluation: &Evaluation) -> String {
    let cell = |text: &str| text.trim().replace('|', "\\|").replace('\n', " ");
    let row = |c: &Caption| format!("| {} | {} |\n", cell(&c.expected), cell(&c.generated));
    let rows: String = evaluation.captions.iter().map(row).collect();
    format!("| of the data | generated |\n|---|---|\n{rows}")
}

/// An open event file.
struct EventFile {
    file: File,
    path: PathBuf,
}

impl EventFile {
    /// Starts a file in `folder`. TensorBoard drops the events of earlier files from `step` on.
    pub fn create(folder: &Path, step: u64) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let (file, path) = new_file(folder)?;
        let mut events = Self { file, path };
        let version = message(|m| m.text(3, "brain.Event:2"));
        events.write(0, &version)?;
        let start = message(|m| m.bytes(7, &message(|log| log.varint(1, 1))));
        events.write(step, &start)?;
        Ok(events)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Adds the scalars of one step, each a tag and a value.
    pub fn scalars(&mut self, step: u64, scalars: &[(String, f64)]) -> io::Result<()> {
        let summary = message(|summary| {
            for (tag, value) in scalars {
                let value = message(|v| {
                    v.text(1, tag);
                    v.float(2, *value as f32);
                });
                summary.bytes(1, &value);
            }
        });
        self.write(step, &message(|event| event.bytes(5, &summary)))
    }

    /// Adds a picture to a step, as PNG.
    pub fn picture(&mut self, step: u64, tag: &str, picture: &RgbImage) -> io::Result<()> {
        let mut png = io::Cursor::new(Vec::new());
        picture.write_to(&mut png, ImageFormat::Png).map_err(io::Error::other)?;
        let value = message(|v| {
            v.text(1, tag);
            v.bytes(
                4,
                &message(|image| {
                    image.varint(1, picture.height().into());
                    image.varint(2, picture.width().into());
                    image.varint(3, RGB);
                    image.bytes(4, png.get_ref());
                }),
            );
        });
        self.value(step, &value)
    }

    /// Adds a text in Markdown to a step.
    pub fn text(&mut self, step: u64, tag: &str, markdown: &str) -> io::Result<()> {
        let plugin = message(|metadata| metadata.bytes(1, &message(|data| data.text(1, "text"))));
        let shape = message(|shape| shape.bytes(2, &message(|dimension| dimension.varint(1, 1))));
        let tensor = message(|tensor| {
            tensor.varint(1, STRING);
            tensor.bytes(2, &shape);
            tensor.text(8, markdown);
        });
        let value = message(|v| {
            v.text(1, tag);
            v.bytes(8, &tensor);
            v.bytes(9, &plugin);
        });
        self.value(step, &value)
    }

    fn value(&mut self, step: u64, value: &[u8]) -> io::Result<()> {
        let summary = message(|summary| summary.bytes(1, value));
        self.write(step, &message(|event| event.bytes(5, &summary)))
    }

    /// Writes an event with `content`, as one frame.
    fn write(&mut self, step: u64, content: &[u8]) -> io::Result<()> {
        let event = message(|event| {
            event.double(1, seconds_now());
            event.varint(2, step);
            event.0.extend_from_slice(content);
        });
        let length = (event.len() as u64).to_le_bytes();
        let mut frame = length.to_vec();
        frame.extend_from_slice(&masked_crc32c(&length).to_le_bytes());
        frame.extend_from_slice(&event);
        frame.extend_from_slice(&masked_crc32c(&event).to_le_bytes());
        self.file.write_all(&frame)
    }
}

/// A file with an unused name. TensorBoard reads files in the order of their names.
fn new_file(folder: &Path) -> io::Result<(File, PathBuf)> {
    let seconds = seconds_now() as u64;
    for n in 0..MAX_FILES_PER_SECOND {
        let path = folder.join(format!("events.out.tfevents.{seconds:010}.{n:03}.dip"));
        match OpenOptions::new().append(true).create_new(true).open(&path) {
            Ok(file) => return Ok((file, path)),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(e),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

fn seconds_now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// A protobuf message that is being written.
#[derive(Default)]
struct ProtobufMessage(Vec<u8>);

fn message(write: impl FnOnce(&mut ProtobufMessage)) -> Vec<u8> {
    let mut message = ProtobufMessage::default();
    write(&mut message);
    message.0
}

/// The colour space of pictures in three channels.
const RGB: u64 = 3;
/// The element type of a tensor of texts.
const STRING: u64 = 7;

/// Wire types of protobuf.
const VARINT: u64 = 0;
const FIXED_64: u64 = 1;
const LENGTH_DELIMITED: u64 = 2;
const FIXED_32: u64 = 5;

impl ProtobufMessage {
    fn raw_varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn key(&mut self, field: u64, wire_type: u64) {
        self.raw_varint(field << 3 | wire_type);
    }

    fn varint(&mut self, field: u64, value: u64) {
        self.key(field, VARINT);
        self.raw_varint(value);
    }

    fn bytes(&mut self, field: u64, value: &[u8]) {
        self.key(field, LENGTH_DELIMITED);
        self.raw_varint(value.len() as u64);
        self.0.extend_from_slice(value);
    }

    fn text(&mut self, field: u64, value: &str) {
        self.bytes(field, value.as_bytes());
    }

    fn double(&mut self, field: u64, value: f64) {
        self.key(field, FIXED_64);
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn float(&mut self, field: u64, value: f32) {
        self.key(field, FIXED_32);
        self.0.extend_from_slice(&value.to_le_bytes());
    }
}

/// The checksum of a frame. It is masked, because a CRC over data with CRCs is weak.
fn masked_crc32c(data: &[u8]) -> u32 {
    CRC_32C.checksum(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_masked_checksum_equals_tensorflow() {
        // The check value of CRC-32C, masked as TensorFlow does.
        assert_eq!(masked_crc32c(b"123456789"), 0xc78a_b0e5);
    }

    #[test]
    fn numbers_are_varints_of_seven_bits() {
        assert_eq!(message(|m| m.varint(1, 300)), [0x08, 0xac, 0x02]);
    }

    /// The payloads of a file whose lengths and checksums are right.
    fn frames(bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut rest = bytes;
        let mut frames = Vec::new();
        while !rest.is_empty() {
            let (length, tail) = rest.split_at(8);
            let (crc, tail) = tail.split_at(4);
            assert_eq!(crc, masked_crc32c(length).to_le_bytes());
            let length = u64::from_le_bytes(length.try_into().unwrap()) as usize;
            let (data, tail) = tail.split_at(length);
            let (crc, tail) = tail.split_at(4);
            assert_eq!(crc, masked_crc32c(data).to_le_bytes());
            frames.push(data.to_vec());
            rest = tail;
        }
        frames
    }

    #[test]
    fn a_file_has_a_version_a_start_and_one_event_a_step() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = EventFile::create(folder.path(), 7).unwrap();
        file.scalars(300, &[("loss".into(), 1.5)]).unwrap();
        let frames = frames(&std::fs::read(file.path()).unwrap());
        assert_eq!(frames.len(), 3);
        // Step and content follow the time.
        let content = |i: usize| &frames[i][9..];
        assert_eq!(content(0), [&[0x10, 0, 0x1a, 13][..], b"brain.Event:2"].concat());
        assert_eq!(content(1), [0x10, 7, 0x3a, 2, 0x08, 1]);
        let value = [&[0x0a, 4][..], b"loss", &[0x15], &1.5f32.to_le_bytes()].concat();
        let summary = [&[0x2a, 13, 0x0a, 11][..], &value].concat();
        assert_eq!(content(2), [&[0x10, 0xac, 0x02][..], &summary].concat());
    }

    #[test]
    fn pictures_and_texts_have_the_fields_of_their_plugins() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = EventFile::create(folder.path(), 0).unwrap();
        file.picture(3, "a", &RgbImage::new(5, 4)).unwrap();
        file.text(3, "b", "| c |").unwrap();
        let frames = frames(&std::fs::read(file.path()).unwrap());
        // Tag, then height, width and colour space, then a PNG.
        let picture = &frames[2];
        let is_in = |part: &[u8]| picture.windows(part.len()).any(|window| window == part);
        assert!(is_in(&[0x0a, 1, b'a', 0x22]) && is_in(&[0x08, 4, 0x10, 5, 0x18, 3, 0x22]));
        assert!(is_in(b"\x89PNG\r\n"));
        let tensor = [&[0x08, 7, 0x12, 4, 0x12, 2, 0x08, 1, 0x42, 5][..], b"| c |"].concat();
        let plugin = [&[0x0a, 6, 0x0a, 4][..], b"text"].concat();
        let value = [
            &[0x0a, 1, b'b', 0x42, tensor.len() as u8][..],
            &tensor,
            &[0x4a, plugin.len() as u8],
            &plugin,
        ]
        .concat();
        assert!(frames[3].ends_with(&value), "{:?}", frames[3]);
    }

    #[test]
    fn two_files_of_one_second_do_not_share_a_name() {
        let folder = tempfile::tempdir().unwrap();
        let [a, b] = [0, 0].map(|step| EventFile::create(folder.path(), step).unwrap());
        assert_ne!(a.path(), b.path());
    }
}
