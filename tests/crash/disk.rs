//! The binary on a disk that loses power, fails or lies: disk.c.

use std::path::PathBuf;
use std::process::Command;

use hookmill_tests::event::now;
use hookmill_tests::eventually;
use hookmill_tests::native::{Pipeline, binary};

use super::{assert_whole, power, under_load};

const FAILURES: usize = 15;

/// A disk of a pipeline.
struct Disk {
    folder: tempfile::TempDir,
    chance: fastrand::Rng,
}

impl Disk {
    fn new(seed: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let source = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("crash/disk.c");
        let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
        let mut compile = Command::new(compiler);
        compile.args(["-shared", "-fPIC", "-O1", "-o"]).arg(folder.path().join("disk.so"));
        let compiled = compile.arg(source).arg("-ldl").status().unwrap();
        assert!(compiled.success(), "the C compiler fails");
        Self { folder, chance: fastrand::Rng::with_seed(seed) }
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// The environment of a process on this disk.
    fn environment(&mut self, options: &[(&'static str, &str)]) -> Vec<(&'static str, String)> {
        let options = options.iter().map(|(name, value)| (*name, (*value).to_owned()));
        let own = [
            ("LD_PRELOAD", self.folder.path().join("disk.so").display().to_string()),
            ("HOOKMILL_DISK_LOG", self.log().display().to_string()),
            ("HOOKMILL_DISK_SEED", self.chance.u64(..).to_string()),
        ];
        own.into_iter().chain(options).collect()
    }
}

fn seed() -> u64 {
    u64::try_from(now().millis()).unwrap()
}

/// What `hookmill verify-data` says of the pipeline's folder; nothing if it is whole.
fn damage(pipeline: &Pipeline) -> String {
    let mut verify = Command::new(binary());
    let verified = verify.arg("verify-data").arg("--data").arg(pipeline.data()).output().unwrap();
    if verified.status.success() {
        String::new()
    } else {
        String::from_utf8(verified.stdout).unwrap()
    }
}

#[test]
fn a_power_failure_loses_no_acknowledged_event() {
    let seed = seed();
    println!("seed {seed}");
    let mut disk = Disk::new(seed);
    let mut pipeline = Pipeline::forgetful_in(disk.environment(&[]));
    let acknowledged = under_load(&mut pipeline, (seed, FAILURES), |pipeline| {
        let environment = disk.environment(&[]);
        pipeline
            .stop_and_restart(environment, |_| power::fails(&disk.log(), &mut disk.chance))
            .unwrap();
    });
    pipeline.settle();
    assert!(acknowledged.len() > 100, "there was load");
    println!("{} acknowledged, {FAILURES} power failures", acknowledged.len());
    assert_whole(&pipeline, &acknowledged);
    assert_eq!(damage(&pipeline), "");
}

/// Writes fail or are incomplete, and syncs fail. Then the power fails too.
#[test]
fn a_failing_disk_loses_no_acknowledged_event() {
    let seed = seed();
    println!("seed {seed}");
    let mut disk = Disk::new(seed);
    let mut pipeline = Pipeline::forgetful_in(disk.environment(&[]));
    let mut refusals = 0;
    let acknowledged = under_load(&mut pipeline, (seed, FAILURES), |pipeline| {
        let often = disk.chance.u32(20..1000).to_string();
        let environment = disk.environment(&[("HOOKMILL_DISK_FAILS", &often)]);
        let mut restarted =
            pipeline.stop_and_restart(environment, |_| power::fails(&disk.log(), &mut disk.chance));
        // A disk that fails at the start is a reason to end, with a reason.
        while let Err(log) = restarted {
            refusals += 1;
            assert!(log.contains("error: "), "{log}");
            assert!(!log.contains("panicked"), "{log}");
            let environment = disk.environment(&[]);
            restarted = pipeline
                .stop_and_restart(environment, |_| power::fails(&disk.log(), &mut disk.chance));
        }
    });
    let sound = disk.environment(&[]);
    pipeline.stop_and_restart(sound, |_| power::fails(&disk.log(), &mut disk.chance)).unwrap();
    pipeline.settle();
    println!("{} acknowledged, {refusals} refusals to start", acknowledged.len());
    assert!(acknowledged.len() > 50, "there was load");
    assert_whole(&pipeline, &acknowledged);
    assert_eq!(damage(&pipeline), "");
}

/// A disk says that it has written what it has not. After a power failure, events may be lost, but Hookmill does not go on with
/// damaged files.
#[test]
fn files_that_a_lying_disk_has_damaged_are_noticed() {
    let seed = seed();
    println!("seed {seed}");
    let mut disk = Disk::new(seed);
    let lies = [("HOOKMILL_DISK_LIES", "1")];
    let (mut noticed, mut whole) = (0, 0);
    while noticed < 3 {
        assert!(whole < 100, "a lying disk damages nothing");
        // The records are about the folder of the pipeline before.
        std::fs::write(disk.log(), "").unwrap();
        let mut pipeline = Pipeline::forgetful_in(disk.environment(&lies));
        under_load(&mut pipeline, (seed, 1), |_| {});
        let environment = disk.environment(&[]);
        let failed = |_: &std::path::Path| power::fails(&disk.log(), &mut disk.chance);
        match pipeline.stop_and_restart(environment, failed) {
            Err(log) => {
                assert!(log.contains("hookmill restore") || log.contains("error: "), "{log}");
                assert!(!log.contains("panicked"), "{log}");
                noticed += 1;
            }
            Ok(()) if damage(&pipeline).is_empty() => whole += 1,
            Ok(()) => {
                let log = eventually("the damage is logged", || {
                    let log = pipeline.logs();
                    let said = ["is damaged", "malformed"].iter().any(|said| log.contains(said));
                    said.then_some(log)
                });
                assert!(!log.contains("panicked"), "{log}");
                noticed += 1;
            }
        }
    }
    println!("{noticed} damaged and noticed, {whole} whole");
}
