//! Training of a text-to-video model.

use dip::train::data::toy::{DataSplit, MovingConfig, write_moving_shards};

use crate::support::inputs::{VIDEO_MODEL, VIDEO_RUN};
use crate::support::{Folder, bytes_needed, last_loss, read, saved};

#[test]
fn a_resumed_run_sees_the_same_clips_and_noise_and_samples_the_same_pictures() {
    let folder = Folder::of_run(VIDEO_MODEL, VIDEO_RUN);
    let text = folder.dip(&["train", "run.toml", "--output", "whole"]).ok();
    assert!(text.contains("flow-matching loss") && text.contains("the named colour"), "{text}");
    let from = |name: &str| folder.path("whole").join(name);
    let again = |name: &str| folder.path("again").join(name);
    folder.share_profile("whole", "again");
    std::fs::rename(from("checkpoint-00000006"), again("checkpoint-00000006")).unwrap();
    folder.dip(&["train", "run.toml", "--output", "again", "--resume"]).ok();
    assert_eq!(folder.losses("again"), folder.losses("whole")[6..]);
    for file in ["samples/00.gif", "samples/contact-sheet.png", "samples/captions.txt"] {
        let bytes = |path| std::fs::read(path).unwrap();
        assert!(bytes(from(file)) == bytes(again(file)), "{file} differs");
    }
    let end = "checkpoint-00000012";
    assert!(saved(&from(end)) == saved(&again(end)), "the checkpoints differ");
    assert_eq!(read(&from("samples/captions.txt")).lines().count(), 2);
}

#[test]
fn schedules_train_clips_in_turns_to_the_same_loss() {
    let folder = Folder::of_run(VIDEO_MODEL, VIDEO_RUN);
    for other in ["1f1b", "interleaved", "optimus"] {
        let arguments = ["train", "run.toml", "--compare", other, "--iterations", "7"];
        let text = folder.dip(&arguments).ok();
        let (a, b) = (last_loss(&text, "dip"), last_loss(&text, other));
        assert!((a - b).abs() < 1e-3 * a, "{text}");
    }
}

#[test]
fn a_run_trains_on_shards_of_gif() {
    let folder = Folder::of_run(VIDEO_MODEL, VIDEO_RUN);
    let shards = |name, split| {
        write_moving_shards(&folder.path(name), MovingConfig { seed: 1, split }, 12, 6).unwrap();
    };
    shards("train", DataSplit::Train);
    shards("held-out", DataSplit::HeldOut);
    folder.write(
        "run.toml",
        &format!("{VIDEO_RUN}[data]\nshards = ['train']\nheld_out = ['held-out']\n"),
    );
    let text = folder.dip(&["train", "run.toml", "--iterations", "4"]).ok();
    assert!(text.contains("samples      0 skipped"), "{text}");
    assert!(folder.path("out/samples/contact-sheet.png").exists());
}

#[test]
fn a_memory_limit_counts_full_microbatches_of_clips_and_averaged_weights() {
    let folder = Folder::of_run(VIDEO_MODEL, VIDEO_RUN);
    folder.dip(&["train", "run.toml", "--iterations", "1", "--output", "free"]).ok();
    let run = |output: &str, limit: u64, from: &str| {
        folder.share_profile("free", output);
        let limit = format!("[pipeline]\nmemory_limit_bytes = {limit}");
        folder.write("run.toml", &from.replace("[pipeline]", &limit));
        folder.dip(&["train", "run.toml", "--output", output])
    };
    let need = |output: &str, from: &str| bytes_needed(&run(output, 1000, from).fails(2));
    let averaged = need("averaged", VIDEO_RUN);
    assert!(averaged > need("plain", &VIDEO_RUN.replace("ema_decay = 0.9", "")));
    run("short", averaged - 1, VIDEO_RUN).fails(2);
    run("enough", averaged, VIDEO_RUN).ok();
    let peaks = folder.peaks("enough");
    assert_eq!(peaks.len(), 12);
    // The matrix of clips and rows grows with their product, but is measured for only a few numbers of clips: the need is inexact.
    assert!(peaks.iter().all(|&peak| peak <= averaged + averaged / 1000), "{averaged}: {peaks:?}");
}

#[test]
fn a_text_encoder_with_a_head_is_refused_with_the_remedy() {
    let folder = Folder::of_run(VIDEO_MODEL, VIDEO_RUN);
    folder.write("small.toml", &VIDEO_MODEL.replace(", head = false", ""));
    let error = folder.dip(&["train", "run.toml"]).fails(2);
    assert!(error.contains("\"video\"") && error.contains("head = false"), "{error}");
}
