//! A folder for one test, deleted with everything in it when the test ends.

use std::fs;
use std::path::{Path, PathBuf};

/// See the module.
pub struct TestFolder {
    path: PathBuf,
}

impl TestFolder {
    /// Creates an empty folder. `name` has to be unique among the tests.
    pub fn new(name: &str) -> TestFolder {
        let path = std::env::temp_dir().join(format!("ilb-svcmgr-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).expect("the temporary folder can be written");
        TestFolder { path }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for TestFolder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            eprintln!("cannot remove {}: {error}", self.path.display());
        }
    }
}
