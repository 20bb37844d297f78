//! Shards of a local server.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

/// Serves one file on 127.0.0.1. The first request of every three fails.
fn serve(content: Vec<u8>) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/data/a.tar", listener.local_addr().unwrap());
    let requests = Arc::new(AtomicUsize::new(0));
    let counted = requests.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let number = counted.fetch_add(1, Ordering::SeqCst);
            let _ = answer(stream.unwrap(), &content, number.is_multiple_of(3));
        }
    });
    (url, requests)
}

fn answer(mut stream: TcpStream, content: &[u8], fails: bool) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let first = lines.next().unwrap()?;
    let mut range = None;
    for line in lines.by_ref() {
        let line = line?.to_ascii_lowercase();
        if let Some(bytes) = line.strip_prefix("range: bytes=") {
            let (start, end) = bytes.split_once('-').unwrap();
            range = Some((start.parse().unwrap(), end.parse::<usize>().unwrap() + 1));
        }
        if line.is_empty() {
            break;
        }
    }
    if fails {
        return write!(
            stream,
            "HTTP/1.1 403 Later\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        );
    }
    if !first.contains("/data/a.tar") {
        return write!(stream, "HTTP/1.1 404 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    }
    let (start, end) = range.unwrap_or((0, content.len()));
    let status = if range.is_some() { "206 Part" } else { "200 OK" };
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nContent-Range: bytes {start}-{}/{}\r\nLast-Modified: Fri, 26 Jul 2024 \
         00:00:00 GMT\r\nConnection: close\r\n\r\n",
        end - start,
        end - 1,
        content.len()
    )?;
    if !first.starts_with("HEAD") {
        stream.write_all(&content[start..end])?;
    }
    Ok(())
}

fn shard() -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, text) in [("a.txt", "first"), ("b.txt", "second")] {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        tar.append_data(&mut header, name, text.as_bytes()).unwrap();
    }
    tar.into_inner().unwrap()
}

fn texts(url: &str, cache: Option<PathBuf>) -> Result<Vec<String>, DataError> {
    let cache = cache.map(|folder| ShardCache { folder, max_bytes: u64::MAX });
    let folders = Folders { cache, ..Folders::default() };
    let config = WebDatasetConfig { shuffle_buffer: 1, folders, ..WebDatasetConfig::default() };
    let mut data = WebDataset::open(&[url.into()], config)?;
    let mut texts = Vec::new();
    while let Some(document) = data.next_in_epoch()? {
        texts.push(document.marked_text());
    }
    Ok(texts)
}

#[test]
fn shards_of_a_server_are_fetched_again_after_failures_and_cached() {
    let (url, requests) = serve(shard());
    assert_eq!(texts(&url, None).unwrap(), ["first", "second"]);
    let cache = tempfile::tempdir().unwrap();
    let cached = || Some(cache.path().join("shards"));
    assert_eq!(texts(&url, cached()).unwrap(), ["first", "second"]);
    let before = requests.load(Ordering::SeqCst);
    assert_eq!(texts(&url, cached()).unwrap(), ["first", "second"]);
    let files: Vec<_> = std::fs::read_dir(cached().unwrap()).unwrap().collect();
    assert_eq!(files.len(), 1);
    assert!(before > 6);
    let missing = url.replace("a.tar", "b.tar");
    let error = texts(&missing, None).unwrap_err().to_string();
    assert!(error.contains("b.tar"), "{error}");
}
