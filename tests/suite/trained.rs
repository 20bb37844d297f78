//! What a trained model can do: `dip evaluate`, `dip caption` and `dip generate`.

use dip::train::data::RgbImage;
use serde_json::Value;

use crate::support::Folder;
use crate::support::inputs::{MODEL, PUBLISHED_CONFIG, PUBLISHED_RUN, RUN, VIDEO_MODEL, VIDEO_RUN};

fn json(line: &str) -> Value {
    serde_json::from_str(line).unwrap()
}

/// A black picture.
fn picture(folder: &Folder, name: &str) {
    RgbImage::new(20, 16).save(folder.path(name)).unwrap();
}

#[test]
fn a_finished_run_is_evaluated_with_the_loss_and_captions_of_its_end() {
    let folder = Folder::of_run(MODEL, RUN);
    folder.dip(&["train", "run.toml"]).ok();
    let metrics = std::fs::read_to_string(folder.path("out/metrics.jsonl")).unwrap();
    let evaluations = metrics.lines().map(json).filter_map(|l| l.get("evaluation").cloned());
    let evaluations: Vec<Value> = evaluations.collect();
    let last = evaluations.last().unwrap();
    let again = json(&folder.dip(&["evaluate", "run.toml", "--json", "--generate"]).ok());
    // Another placement of the layers computes the same, to the bit.
    assert_eq!(again["loss"], last["loss"]);
    assert_eq!(again["captions"], last["captions"]);
    assert_eq!(again["iteration"], 40);
    let middle = "out/checkpoint-00000030";
    let middle = folder.dip(&["evaluate", "run.toml", "--json", "--checkpoint", middle]).ok();
    assert_eq!(json(&middle)["iteration"], 30);
    let text = folder.dip(&["evaluate", "run.toml"]).ok();
    assert!(text.starts_with("caption loss ") && text.contains("after 40 iterations"), "{text}");

    picture(&folder, "a.png");
    picture(&folder, "b.jpg");
    let caption = ["caption", "a.png", "b.jpg", "--from", "run.toml", "--max-tokens", "3"];
    let text = folder.dip(&[&caption[..], &["--json"]].concat()).ok();
    let document = json(&text);
    assert_eq!(document["schema"], "dip.captions/v1");
    let captions = document["captions"].as_array().unwrap();
    assert_eq!(captions.len(), 2);
    assert_eq!(captions[1]["picture"], "b.jpg");
    assert!(captions.iter().all(|line| line["caption"].is_string()));
    assert!(folder.dip(&caption).ok().starts_with("a.png: "));
    folder.write("broken.png", "no picture");
    let error = folder.dip(&["caption", "broken.png", "--from", "run.toml"]).fails(2);
    assert!(error.contains("broken.png") && error.contains("cannot be decoded"), "{error}");
    let error = folder.dip(&["generate", "a red ring", "--from", "run.toml"]).fails(2);
    assert!(error.contains("text-to-video"), "{error}");
}

#[test]
fn a_finished_run_draws_clips_for_any_caption() {
    let folder = Folder::of_run(VIDEO_MODEL, VIDEO_RUN);
    folder.dip(&["train", "run.toml"]).ok();
    let generate = ["generate", "a red ring moves left", "two words", "--from", "run.toml"];
    let more = ["--out", "clips", "--seconds", "1", "--steps", "2", "--json"];
    let text = folder.dip(&[&generate[..], &more].concat()).ok();
    let document = json(&text);
    let clips = document["clips"].as_array().unwrap();
    assert_eq!(clips[1]["caption"], "two words");
    let files: Vec<Vec<u8>> = clips
        .iter()
        .map(|clip| std::fs::read(folder.path(clip["clip"].as_str().unwrap())).unwrap())
        .collect();
    assert!(files.iter().all(|bytes| bytes.starts_with(b"GIF")));
    folder.dip(&[&generate[..], &more].concat()).ok();
    assert_eq!(std::fs::read(folder.path("clips/00.gif")).unwrap(), files[0]);
    let text = folder.dip(&["evaluate", "run.toml", "--generate", "held-out"]).ok();
    assert!(text.contains("flow-matching loss") && text.contains("held-out"), "{text}");
    assert!(folder.path("held-out/contact-sheet.png").exists());
}

#[test]
fn a_run_without_a_checkpoint_and_a_folder_without_a_model_are_refused() {
    let folder = Folder::of_run(MODEL, RUN);
    let error = folder.dip(&["evaluate", "run.toml"]).fails(2);
    assert!(error.contains("no checkpoint"), "{error}");
    picture(&folder, "a.png");
    let error = folder.dip(&["caption", "a.png", "--from", "nowhere"]).fails(2);
    assert!(error.contains("nowhere") && error.contains("run TOML"), "{error}");
}

#[test]
fn an_export_captions_pictures() {
    let folder = Folder::new();
    std::fs::create_dir(folder.path("tiny")).unwrap();
    folder.write("tiny/config.json", PUBLISHED_CONFIG);
    folder.write("tiny/tokenizer_config.json", "{}");
    let run = PUBLISHED_RUN.replace("[data]\n", "[data]\ntokenizer = 'bytes'\n");
    folder.write("run.toml", &run);
    folder.dip(&["train", "run.toml"]).ok();
    folder.dip(&["export", "run.toml", "--out", "exported"]).ok();
    picture(&folder, "a.png");
    let caption = ["caption", "a.png", "--max-tokens", "2", "--from"];
    let more = ["exported", "--tokenizer", "bytes"];
    assert!(folder.dip(&[&caption[..], &more].concat()).ok().starts_with("a.png: "));
    let error = folder.dip(&[&caption[..], &["exported"]].concat()).fails(2);
    assert!(error.contains("tokenizer"), "{error}");
}
