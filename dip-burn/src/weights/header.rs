//! The header of a safetensors file.

use safetensors::tensor::{Dtype, TensorInfo};
use serde_json::{Value, json};

/// The header of a file whose tensors, by name and shape, follow in this order: its length, and its text padded to eight bytes.
pub(crate) fn header(dtype: Dtype, tensors: &[(String, Vec<usize>)]) -> Vec<u8> {
    let mut header = serde_json::Map::new();
    header.insert("__metadata__".into(), json!({ "format": "pt" }));
    let mut start = 0;
    for (name, shape) in tensors {
        let end = start + shape.iter().product::<usize>() * dtype.bitsize() / 8;
        let info = TensorInfo { dtype, shape: shape.clone(), data_offsets: (start, end) };
        let info = serde_json::to_value(info).expect("plain data has a JSON form");
        header.insert(name.clone(), info);
        start = end;
    }
    let mut text = Value::Object(header).to_string().into_bytes();
    text.resize(text.len().next_multiple_of(8), b' ');
    let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
    bytes.extend(text);
    bytes
}
