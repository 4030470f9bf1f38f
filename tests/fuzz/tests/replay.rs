//! Every target with what was found before (`regressions`), what its fuzzing starts from (`corpus`), and seeded random
//! bytes, in every `cargo test`.

use std::fs;
use std::path::Path;

use ilb_fuzz::TARGETS;

/// Random inputs for each target, of up to 2 KiB.
const RANDOM_INPUTS: u64 = 3_000;

fn files(kind: &str, target: &str) -> Vec<(String, Vec<u8>)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join(kind)
        .join(target);
    let Ok(entries) = fs::read_dir(&directory) else {
        return Vec::new();
    };
    let mut files: Vec<_> = entries
        .map(|entry| {
            let path = entry.expect("a directory entry").path();
            let content = fs::read(&path).expect("a file that can be read");
            (path.display().to_string(), content)
        })
        .collect();
    files.sort();
    files
}

#[test]
fn regressions_and_corpus_hold() {
    for (name, target) in TARGETS {
        let corpus = files("corpus", name);
        assert!(!corpus.is_empty(), "{name} has a seed corpus");
        for (path, content) in corpus.into_iter().chain(files("regressions", name)) {
            println!("{path}");
            target(&content);
        }
    }
}

#[test]
fn random_bytes_hold() {
    let mut state = 0x1db_5eed_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for (name, target) in TARGETS {
        for n in 0..RANDOM_INPUTS {
            let len = random() as usize % if n % 8 == 0 { 2048 } else { 300 };
            let input: Vec<u8> = (0..len).map(|_| (random() >> 32) as u8).collect();
            let outcome = std::panic::catch_unwind(|| target(&input));
            assert!(outcome.is_ok(), "{name}, input {n}: {input:02x?}");
        }
    }
}
