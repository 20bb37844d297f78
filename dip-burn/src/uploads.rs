//! Tables that stages need on their device, such as positions, masks and targets, uploaded once instead of once a stage.
//!
//! Forwards and backwards of one microbatch, and all chunks of a rank, need the same tables. A stage works in the scope of the
//! [`Uploads`] of its rank, in which [`floats`] and [`ints`] upload a table only if they do not know its values. A table that no stage has
//! needed for a whole batch is forgotten. Large tables are not kept: for them, the memory counts more than the call.
//!
//! Tables are uploaded as vectors and then shaped: CubeCL pads the rows of a matrix, and kernels would copy it.

use std::any::Any;
use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::backend::Backend;
use burn::tensor::{BasicOps, DType, Int, Tensor, TensorData};
use twox_hash::XxHash3_64;

/// Bytes of the largest table that is kept.
const MOST_OF_TABLE: usize = 1 << 20;
/// Most bytes of all tables that are kept.
const MOST: usize = 64 << 20;

thread_local! {
    /// The uploads in whose scope this thread works.
    static CURRENT: RefCell<Option<Uploads>> = const { RefCell::new(None) };
}

/// The tables of a rank on its device. Copies share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Uploads(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    tables: HashMap<(DType, [u64; 2]), Table>,
    bytes: usize,
}

#[derive(Debug)]
struct Table {
    /// A tensor with one dimension, under the hash of its values.
    tensor: Box<dyn Any + Send>,
    bytes: usize,
    /// True if this batch has needed it.
    is_used: bool,
}

/// Ends a scope, even by a panic.
struct Scope(Option<Uploads>);

impl Drop for Scope {
    fn drop(&mut self) {
        CURRENT.set(self.0.take());
    }
}

impl Uploads {
    /// Runs `work`, whose tables are kept here.
    pub fn scope<T>(&self, work: impl FnOnce() -> T) -> T {
        let _outer = Scope(CURRENT.replace(Some(self.clone())));
        work()
    }

    /// Starts a batch: forgets the tables that the last one has not needed.
    pub fn next_batch(&self) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.tables.retain(|_, table| std::mem::take(&mut table.is_used));
        known.bytes = known.tables.values().map(|table| table.bytes).sum();
    }

    /// The tensor of `data`, from the tables or else from `upload`.
    fn tensor<T: Any + Clone + Send>(
        &self,
        data: TensorData,
        upload: impl FnOnce(TensorData) -> T,
    ) -> T {
        let bytes = data.as_bytes().len();
        let hash = |seed| XxHash3_64::oneshot_with_seed(seed, data.as_bytes());
        let key = (data.dtype, [hash(0), hash(1)]);
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(table) = known.tables.get_mut(&key)
            && let Some(tensor) = table.tensor.downcast_ref::<T>()
        {
            table.is_used = true;
            return tensor.clone();
        }
        let tensor = upload(data);
        if known.bytes + bytes <= MOST {
            let table = Table { tensor: Box::new(tensor.clone()), bytes, is_used: true };
            let before = known.tables.insert(key, table).map_or(0, |table| table.bytes);
            known.bytes = known.bytes + bytes - before;
        }
        tensor
    }
}

/// Values in f32 on a device.
pub(crate) fn floats<B: Backend, const D: usize>(
    values: Vec<f32>,
    shape: [usize; D],
    device: &B::Device,
) -> Tensor<B, D> {
    let length = values.len();
    let upload = |data| Tensor::<B, 1>::from_data(data, (device, DType::F32));
    shaped(known(TensorData::new(values, [length]), upload), shape)
}

/// Integers on a device.
pub(crate) fn ints<B: Backend, const D: usize>(
    values: Vec<i32>,
    shape: [usize; D],
    device: &B::Device,
) -> Tensor<B, D, Int> {
    let length = values.len();
    let upload = |data| Tensor::<B, 1, Int>::from_data(data, device);
    shaped(known(TensorData::new(values, [length]), upload), shape)
}

fn known<T: Any + Clone + Send>(data: TensorData, upload: impl FnOnce(TensorData) -> T) -> T {
    if data.as_bytes().len() > MOST_OF_TABLE {
        return upload(data);
    }
    match CURRENT.with_borrow(Clone::clone) {
        Some(uploads) => uploads.tensor(data, upload),
        None => upload(data),
    }
}

fn shaped<B: Backend, const D: usize, K: BasicOps<B>>(
    flat: Tensor<B, 1, K>,
    shape: [usize; D],
) -> Tensor<B, D, K> {
    if D == 1 { Tensor::from_primitive(flat.into_primitive()) } else { flat.reshape(shape) }
}

#[cfg(test)]
mod tests {
    use burn::backend::Flex;

    use super::*;

    fn tables(uploads: &Uploads) -> usize {
        uploads.0.lock().unwrap().tables.len()
    }

    #[test]
    fn a_table_is_kept_while_batches_need_it() {
        let (uploads, device) = (Uploads::default(), Default::default());
        let need = |value: i32| -> Vec<i64> {
            let table = uploads.scope(|| ints::<Flex, 2>(vec![value; 6], [2, 3], &device));
            assert_eq!(table.dims(), [2, 3]);
            table.into_data().iter::<i64>().collect()
        };
        assert_eq!((need(1), need(2), need(1)), (vec![1; 6], vec![2; 6], vec![1; 6]));
        assert_eq!(tables(&uploads), 2);
        uploads.next_batch();
        need(2);
        assert_eq!(tables(&uploads), 2);
        uploads.next_batch();
        assert_eq!(tables(&uploads), 1);
        need(3);
        uploads.next_batch();
        uploads.next_batch();
        assert_eq!(tables(&uploads), 0);
    }

    #[test]
    fn equal_bytes_of_another_type_are_another_table() {
        let (uploads, device) = (Uploads::default(), Default::default());
        let ones = uploads.scope(|| floats::<Flex, 1>(vec![1.0], [1], &device));
        let bits = uploads.scope(|| ints::<Flex, 1>(vec![0x3f80_0000], [1], &device));
        assert_eq!(ones.into_data().iter::<f32>().next(), Some(1.0));
        assert_eq!(bits.into_data().iter::<i64>().next(), Some(0x3f80_0000));
        assert_eq!(tables(&uploads), 2);
    }

    #[test]
    fn a_table_that_a_stage_changes_stays_as_it_was() {
        let (uploads, device) = (Uploads::default(), Default::default());
        let table = || uploads.scope(|| floats::<Flex, 1>(vec![1.0, 2.0], [2], &device));
        let _changed = table().add_scalar(5.0).mul_scalar(2.0);
        let values: Vec<f32> = table().into_data().iter().collect();
        assert_eq!(values, [1.0, 2.0]);
    }

    #[test]
    fn large_tables_and_tables_outside_a_scope_are_not_kept() {
        let (uploads, device) = (Uploads::default(), Default::default());
        let length = MOST_OF_TABLE / 4 + 1;
        uploads.scope(|| drop(floats::<Flex, 1>(vec![1.0; length], [length], &device)));
        drop(floats::<Flex, 1>(vec![1.0], [1], &device));
        assert_eq!(tables(&uploads), 0);
    }
}
