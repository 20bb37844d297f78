use super::*;

fn file(name: &str) -> Vec<u8> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/processors/pictures");
    std::fs::read(std::path::Path::new(folder).join(name)).unwrap()
}

#[test]
fn a_scan_that_ends_early_is_refused_even_with_an_end_marker() {
    for name in ["rgb420.jpg", "progressive420.jpg", "restarts.jpg", "grey.jpg", "cmyk.jpg"] {
        let bytes = file(name);
        decode(&bytes).unwrap();
        for kept in [bytes.len() / 2 + 100, bytes.len() * 7 / 8] {
            let cut = [&bytes[..kept], &[0xff, 0xd9]].concat();
            assert!(decode(&cut).is_err(), "{name}, {kept} of {} bytes", bytes.len());
        }
        assert!(decode(&bytes[..bytes.len() - 2]).is_err(), "{name} without its end marker");
    }
}

#[test]
fn missing_parts_are_named() {
    let bytes = file("rgb444.jpg");
    let without = |marker: u8| {
        let at = bytes.windows(2).position(|pair| pair == [0xff, marker]).unwrap();
        let length = usize::from(u16::from_be_bytes([bytes[at + 2], bytes[at + 3]]));
        [&bytes[..at], &bytes[at + 2 + length..]].concat()
    };
    for (marker, part) in [(0xdb, "quantisation"), (0xc4, "Huffman"), (0xc0, "before its frame")] {
        let error = decode(&without(marker)).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
    assert!(decode(&[0xff, 0xd8, 0xff, 0xd9]).unwrap_err().to_string().contains("no frame"));
}
