//! Arrays in NumPy's `.npy` files: little-endian floats in row order.

use burn::tensor::f16;

use super::error::VideoError;

const MAGIC: &[u8] = b"\x93NUMPY";
/// Longest header that is read, in bytes; the header of an array of floats has about 100.
const MAX_HEADER_BYTES: usize = 1 << 12;
/// Most dimensions of an array.
const MAX_SIDES: usize = 8;

/// True if a file begins like a `.npy` file.
pub(super) fn is_npy(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC)
}

/// The shape and the values of an array.
pub(super) fn read(bytes: &[u8]) -> Result<(Vec<usize>, Vec<f32>), VideoError> {
    let (header, data) = split(bytes).ok_or_else(|| broken("its header is cut off"))?;
    let dtype = field(header, "descr").and_then(|rest| rest.strip_prefix('\''));
    let dtype = dtype.and_then(|rest| rest.split('\'').next()).unwrap_or_default();
    if !field(header, "fortran_order").is_some_and(|rest| rest.starts_with("False")) {
        return Err(broken("its order is not that of rows: save np.ascontiguousarray(x)"));
    }
    let sides = sides(header).ok_or_else(|| broken("its shape cannot be read"))?;
    let bytes_of = match dtype {
        "<f2" => 2,
        "<f4" => 4,
        "<f8" => 8,
        other => {
            return Err(VideoError::broken(format!(
                "its type is {other:?}, but <f2, <f4 or <f8 is read"
            )));
        }
    };
    let count = sides.iter().try_fold(1usize, |n, &side| n.checked_mul(side));
    if count.and_then(|count| count.checked_mul(bytes_of)) != Some(data.len()) {
        return Err(broken("it has other bytes than its shape needs"));
    }
    let values = match bytes_of {
        2 => chunks(data).map(|b| f16::from_le_bytes(b).to_f32()).collect(),
        4 => chunks(data).map(f32::from_le_bytes).collect(),
        _ => chunks(data).map(|b| f64::from_le_bytes(b) as f32).collect(),
    };
    Ok((sides, values))
}

fn broken(what: &str) -> VideoError {
    VideoError::broken(format!("the .npy file: {what}"))
}

/// The header as text, and the data after it. The length of the header has two bytes in version 1, and four after that.
fn split(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let (version, rest) = bytes.strip_prefix(MAGIC)?.split_first_chunk::<2>()?;
    let (length, rest) = match version[0] {
        1 => rest.split_first_chunk().map(|(n, rest)| (u16::from_le_bytes(*n) as usize, rest))?,
        _ => rest.split_first_chunk().map(|(n, rest)| (u32::from_le_bytes(*n) as usize, rest))?,
    };
    let header = rest.get(..length.min(MAX_HEADER_BYTES + 1))?;
    let header = std::str::from_utf8(header).ok().filter(|text| text.len() == length)?;
    Some((header, &rest[length..]))
}

/// What follows the name of a field of the header.
fn field<'a>(header: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = header.split_once(&format!("'{name}':"))?;
    Some(rest.trim_start())
}

fn sides(header: &str) -> Option<Vec<usize>> {
    let inside = field(header, "shape")?.strip_prefix('(')?.split_once(')')?.0;
    let sides = inside.split(',').map(str::trim).filter(|side| !side.is_empty());
    let sides: Vec<usize> = sides.map(|side| side.parse().ok()).collect::<Option<_>>()?;
    (sides.len() <= MAX_SIDES).then_some(sides)
}

fn chunks<const N: usize>(data: &[u8]) -> impl Iterator<Item = [u8; N]> + '_ {
    data.chunks_exact(N).map(|chunk| chunk.try_into().expect("chunks have N bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file as `np.save` writes it.
    fn file(dtype: &str, order: &str, shape: &str, data: &[u8]) -> Vec<u8> {
        let header =
            format!("{{'descr': '{dtype}', 'fortran_order': {order}, 'shape': {shape}, }}");
        let padded = format!("{header:<117}\n");
        let length = (padded.len() as u16).to_le_bytes();
        [MAGIC, &[1, 0], &length, padded.as_bytes(), data].concat()
    }

    #[test]
    fn arrays_of_every_float_are_read() {
        let numbers = [1.0f32, -0.5, 3.0, 0.0, 2.0, 8.0];
        let halves: Vec<u8> =
            numbers.iter().flat_map(|&x| f16::from_f32(x).to_le_bytes()).collect();
        let singles: Vec<u8> = numbers.iter().flat_map(|x| x.to_le_bytes()).collect();
        let doubles: Vec<u8> = numbers.iter().flat_map(|&x| f64::from(x).to_le_bytes()).collect();
        for (dtype, data) in [("<f2", halves), ("<f4", singles), ("<f8", doubles)] {
            let (sides, values) = read(&file(dtype, "False", "(1, 2, 3)", &data)).unwrap();
            assert_eq!((sides, &values[..]), (vec![1, 2, 3], &numbers[..]), "{dtype}");
        }
        assert_eq!(read(&file("<f4", "False", "(2,)", &[0; 8])).unwrap().0, [2]);
    }

    #[test]
    fn other_arrays_and_damaged_files_are_refused() {
        let error = |bytes: &[u8]| read(bytes).unwrap_err().to_string();
        assert!(error(&file(">f4", "False", "(1,)", &[0; 4])).contains("\">f4\""));
        assert!(error(&file("<f4", "True", "(1,)", &[0; 4])).contains("ascontiguousarray"));
        for shape in ["(2,)", "(18446744073709551615, 4)", "(1, x)", "1", "(-1,)"] {
            assert!(read(&file("<f4", "False", shape, &[0; 4])).is_err(), "{shape}");
        }
        let whole = file("<f4", "False", "(1,)", &[0; 4]);
        assert!((0..whole.len()).all(|end| read(&whole[..end]).is_err()));
    }
}
