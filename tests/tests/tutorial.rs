//! docs/tutorial.md is true: its commands print what stands there.

use std::path::Path;

use ilb_tests::lab::{Lab, Spec};
use ilb_tests::tutorial;

#[test]
fn the_tutorial_is_what_happens() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/tutorial.md");
    let text = std::fs::read_to_string(&path).expect("docs/tutorial.md is there");
    let lab = Lab::with_ilb(Spec::default());
    let run = tutorial::run(&lab, &text);
    assert!(run.steps > 30, "the tutorial has {} commands", run.steps);
    if tutorial::writing() {
        std::fs::write(&path, run.text).expect("docs/tutorial.md can be written");
        return;
    }
    assert!(
        run.wrong.is_empty(),
        "docs/tutorial.md is no longer true (ILB_GOLDEN=write writes it anew, to be read before it is committed):\n\n{}",
        run.wrong.join("\n\n")
    );
}
