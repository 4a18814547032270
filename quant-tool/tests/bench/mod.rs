//! The program in a folder of a test's own, with photographs that the test draws.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

/// Photographs in a data set.
pub(crate) const PHOTOGRAPHS: u32 = 6;

/// A training configuration whose network is small enough for seconds.
pub(crate) const TINY: &str = r#"
name = "tiny"
version = 3
seed = 5
thresholds = [0.3, 0.5]
[network]
width = 64
height = 48
stem = [4, 4]
stage8 = [6]
stage16 = [6]
stage32 = [8]
neck = 6
[float]
steps = 6
batch = 4
sample = [64, 64]
rate = 0.002
weight_decay = 0.0001
average_decay = 0.9
[quantize]
soft_steps = 3
soft_rate = 0.001
pull = 0.1
hard_steps = 5
hard_rate = 0.001
free = "straight-through"
groups = [0.0, 0.5, 1.0]
last_group_at = 0.5
[augment]
mosaic = 0.5
scale = [0.6, 1.5]
aspect = 0.1
grey = 0.2
light = [0.5, 1.4]
blur = 0.2
cut_out = 0.3
noise = 0.05
source_weights = {}
stretched = {}
[card]
about = "what the test draws"
"#;

/// A folder with annotated photographs in `data` and a key pair, `key.secret` and `key.pub`.
pub(crate) struct Bench(tempfile::TempDir);

impl Bench {
    pub(crate) fn new() -> Self {
        let bench = Self(tempfile::tempdir().unwrap());
        bench.draw("data");
        bench.succeed("keygen key");
        bench
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.path(name), content).unwrap();
    }

    pub(crate) fn text(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    /// Makes a data set of photographs with one bright "person" each.
    pub(crate) fn draw(&self, folder: &str) {
        fs::create_dir_all(self.path(folder).join("images")).unwrap();
        let (mut images, mut annotations) = (Vec::new(), Vec::new());
        for id in 0..PHOTOGRAPHS {
            let (x, y) = (5 + 9 * id, 8 + 3 * id);
            let mut picture = image::RgbImage::from_pixel(96, 72, image::Rgb([40, 50, 60]));
            for (dx, dy) in (0..14).flat_map(|dx| (0..30).map(move |dy| (dx, dy))) {
                picture.put_pixel(x + dx, y + dy, image::Rgb([230, 200, 180]));
            }
            let name = format!("{id}.png");
            picture
                .save(self.path(folder).join("images").join(&name))
                .unwrap();
            images.push(serde_json::json!({ "id": id, "file_name": name, "source": "drawn" }));
            let bbox = [x, y, 14, 30];
            annotations.push(
                serde_json::json!({ "id": id, "image_id": id, "category_id": 1, "bbox": bbox }),
            );
        }
        let categories = [serde_json::json!({ "id": 1, "name": "person" })];
        let file = serde_json::json!({ "images": images, "annotations": annotations, "categories": categories });
        self.write(&format!("{folder}/annotations.json"), file.to_string());
    }

    /// The program with these arguments, which spaces part.
    pub(crate) fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_quant-tool"));
        command
            .args(arguments.split_whitespace())
            .current_dir(self.0.path());
        command
    }

    fn call(&self, arguments: &str) -> (Output, String) {
        let output = self.command(arguments).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        (output, errors)
    }

    /// What a call that must succeed says, on standard output and on standard error.
    pub(crate) fn succeed(&self, arguments: &str) -> (String, String) {
        let (output, errors) = self.call(arguments);
        assert!(output.status.success(), "{arguments}: {errors}");
        (String::from_utf8(output.stdout).unwrap(), errors)
    }

    /// Calls that must fail with this code and name this on standard error.
    pub(crate) fn fail(&self, arguments: &str, code: i32, named: &str) {
        let (output, errors) = self.call(arguments);
        assert_eq!(output.status.code(), Some(code), "{arguments}: {errors}");
        assert!(
            errors.contains(named),
            "{arguments}: no \"{named}\" in: {errors}"
        );
    }
}
