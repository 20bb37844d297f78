//! Tests of checkpoints without a run.

use std::fs;
use std::path::Path;

use burn::tensor::TensorData;

use super::*;
use crate::params::{LazyTensor, TensorSource};

fn tensor(name: &str, values: [f32; 2]) -> LazyTensor {
    LazyTensor::on_host(name.into(), TensorData::new(values.to_vec(), vec![1, 2]))
}

/// A checkpoint of two ranks with one tensor each.
fn saved(output: &Path, iteration: u64, keep: usize) -> std::path::PathBuf {
    let draft = Draft::create(output, iteration).unwrap();
    let files = [
        write_shard(draft.folder(), model_file(0), vec![tensor("a", [1.0, 2.0])]).unwrap(),
        write_shard(draft.folder(), optimizer_file(1, 0), vec![tensor("b", [3.0, -4.0])]).unwrap(),
    ];
    draft.commit(&iteration, &files, keep).unwrap()
}

#[test]
fn each_tensor_is_read_alone_and_only_weights_are_exported() {
    let folder = tempfile::tempdir().unwrap();
    let path = saved(folder.path(), 7, 1);
    let reader = CheckpointReader::open_newest(folder.path()).unwrap().unwrap();
    assert_eq!((reader.path(), reader.state::<u64>().unwrap()), (path.as_path(), 7));
    let values = |name: &str| reader.tensor(name).unwrap().map(|t| t.to_vec::<f32>().unwrap());
    assert_eq!((values("a"), values("b")), (Some(vec![1.0, 2.0]), Some(vec![3.0, -4.0])));
    assert_eq!(values("c"), None);
    assert_eq!(reader.weights().unwrap().names().collect::<Vec<_>>(), ["a"]);
    assert!(CheckpointReader::open_newest(&folder.path().join("none")).unwrap().is_none());
}

#[test]
fn checksums_are_those_of_xxhsum() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.txt"), "dip").unwrap();
    renew_checksums(folder.path()).unwrap();
    let text = fs::read_to_string(folder.path().join(CHECKSUMS)).unwrap();
    // printf dip > a.txt && xxhsum -H3 a.txt
    assert_eq!(text, "XXH3 (a.txt) = a49035603edcfe61\n");
}

#[test]
fn old_checkpoints_go_and_those_of_a_course_that_was_given_up() {
    let folder = tempfile::tempdir().unwrap();
    for iteration in [10, 20, 30, 40] {
        saved(folder.path(), iteration, 9);
    }
    saved(folder.path(), 25, 2);
    let left = list(folder.path()).unwrap();
    assert_eq!(left, [20, 25].map(|iteration| path_of(folder.path(), iteration)));
}

#[test]
fn a_draft_that_processes_do_not_share_is_not_committed() {
    let folder = tempfile::tempdir().unwrap();
    let error = Draft::join(folder.path(), 1).unwrap_err().to_string();
    assert!(error.contains("a file system that all machines share"), "{error}");
    let draft = Draft::create(folder.path(), 1).unwrap();
    let joined = Draft::join(folder.path(), 1).unwrap();
    let shard = write_shard(joined.folder(), model_file(0), vec![tensor("a", [0.0; 2])]).unwrap();
    fs::remove_file(draft.folder().join(model_file(0))).unwrap();
    let error = draft.commit(&(), &[shard], 1).unwrap_err();
    assert!(matches!(error, CheckpointError::NotShared { .. }), "{error}");
    assert!(list(folder.path()).unwrap().is_empty());
    // What is left does not hinder the next one.
    saved(folder.path(), 2, 1);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}
