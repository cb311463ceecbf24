//! What the run needs on the machine, and bringing what is missing.

use std::fmt;
use std::process::Command;

use crate::shell;
use crate::test::apt;
use crate::workspace::{MUSL, Workspace};

/// A Java program in a single file, run without compiling, came with this version.
const JAVA_MIN: u32 = 11;

/// Below the target folder.
const PYTHON_TOOLS: &str = "tools/python";

struct Need {
    program: &'static str,
    is_there: fn() -> bool,
    from: Source,
}

enum Source {
    /// A package of Debian.
    Apt(&'static str),
    /// Arguments for rustup.
    Rustup(&'static [&'static str]),
    /// A package of PyPI, into a folder of the workspace's own.
    Pip(&'static str),
}

const NEEDS: [Need; 15] = [
    Need {
        program: "rustfmt",
        is_there: || cargo_knows("fmt"),
        from: Source::Rustup(&["component", "add", "rustfmt"]),
    },
    Need {
        program: "clippy",
        is_there: || cargo_knows("clippy"),
        from: Source::Rustup(&["component", "add", "clippy"]),
    },
    Need { program: MUSL, is_there: has_musl_target, from: Source::Rustup(&["target", "add", MUSL]) },
    Need { program: "musl-gcc", is_there: || shell::has("musl-gcc"), from: Source::Apt("musl-tools") },
    Need { program: "make", is_there: || shell::has("make"), from: Source::Apt("make") },
    Need { program: "cpio", is_there: || shell::has("cpio"), from: Source::Apt("cpio") },
    Need {
        program: "qemu-system-x86_64",
        is_there: || shell::has("qemu-system-x86_64"),
        from: Source::Apt("qemu-system-x86"),
    },
    Need { program: "c++", is_there: || shell::has("c++"), from: Source::Apt("g++") },
    Need {
        program: "systemd-analyze",
        is_there: || shell::has("systemd-analyze"),
        from: Source::Apt("systemd"),
    },
    Need { program: "node", is_there: || shell::has("node"), from: Source::Apt("nodejs") },
    Need { program: "python3", is_there: || shell::has("python3"), from: Source::Apt("python3") },
    Need { program: "pip", is_there: has_pip, from: Source::Apt("python3-pip") },
    Need { program: "moto", is_there: has_moto, from: Source::Pip("moto[server]==5.2.1") },
    Need { program: "pebble", is_there: || shell::has("pebble"), from: Source::Apt("pebble") },
    Need { program: "java", is_there: has_java, from: Source::Apt("default-jdk-headless") },
];

/// Something that is missing and could not be brought.
#[derive(Debug)]
pub(super) struct Lack {
    pub(super) program: &'static str,
    pub(super) why: String,
}

impl fmt::Display for Lack {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} ({})", self.program, self.why)
    }
}

/// Brings what of `wanted` is missing; what could not be brought comes back.
pub(super) fn bring(workspace: &Workspace, wanted: &[&str]) -> Vec<Lack> {
    let missing: Vec<&Need> =
        NEEDS.iter().filter(|need| wanted.contains(&need.program) && !(need.is_there)()).collect();
    let mut packages = Vec::new();
    for need in &missing {
        match need.from {
            Source::Apt(package) => packages.push(package),
            Source::Rustup(args) => run_rustup(workspace, args),
            Source::Pip(_) => {}
        }
    }
    let refusal = if packages.is_empty() { None } else { install(&packages) };
    // pip itself may have come by apt just now.
    for need in &missing {
        if let Source::Pip(package) = need.from {
            run_pip(workspace, package);
        }
    }
    let still = missing.into_iter().filter(|need| !(need.is_there)());
    still.map(|need| Lack { program: need.program, why: why(need, refusal.as_deref()) }).collect()
}

fn why(need: &Need, refusal: Option<&str>) -> String {
    match need.from {
        Source::Apt(package) => {
            let refusal = refusal.map(|refusal| format!("; {refusal}")).unwrap_or_default();
            format!("Debian's package {package}{refusal}")
        }
        Source::Rustup(args) => format!("rustup {}", args.join(" ")),
        Source::Pip(package) => format!("PyPI's package {package}"),
    }
}

/// Installs by apt; why that did not work, if so.
fn install(packages: &[&str]) -> Option<String> {
    println!("installing {}", packages.join(" "));
    if let Some(why) = apt::refused() {
        return Some(why.to_owned());
    }
    // Old lists may still do when the archive cannot be reached for new ones.
    if let Err(error) = apt::update() {
        println!("{error}");
    }
    apt::install(packages).err().map(|error| error.to_string())
}

fn run_rustup(workspace: &Workspace, args: &[&str]) {
    println!("$ rustup {}", args.join(" "));
    // Whether it helped is seen by looking again; it may not even be installed.
    if let Err(error) = shell::output(Command::new("rustup").args(args).current_dir(&workspace.root)) {
        println!("{error}");
    }
}

/// Into `target/tools/python`, where the tests look for it.
fn run_pip(workspace: &Workspace, package: &str) {
    let folder = workspace.target.join(PYTHON_TOOLS);
    let mut command = Command::new("python3");
    command.args(["-m", "pip", "install", "--quiet", "--target"]).arg(folder).arg(package);
    println!("$ {}", shell::show(&command));
    if let Err(error) = shell::output(&mut command) {
        println!("{error}");
    }
}

fn has_pip() -> bool {
    shell::succeeds(Command::new("python3").args(["-m", "pip", "--version"]))
}

fn has_moto() -> bool {
    let mut command = Command::new("python3");
    command.args(["-c", "import moto.server"]).env("PYTHONPATH", format!("target/{PYTHON_TOOLS}"));
    shell::succeeds(&mut command)
}

fn cargo_knows(verb: &str) -> bool {
    shell::succeeds(Command::new("cargo").args([verb, "--version"]))
}

fn has_musl_target() -> bool {
    let folder = shell::output(Command::new("rustc").args(["--print", "target-libdir", "--target", MUSL]));
    folder.is_ok_and(|folder| std::path::Path::new(folder.trim()).is_dir())
}

fn has_java() -> bool {
    let Ok(output) = Command::new("java").arg("-version").output() else { return false };
    java_version(&String::from_utf8_lossy(&output.stderr)).is_some_and(|version| version >= JAVA_MIN)
}

/// The major version in the first line of `java -version`: `"17.0.13"`, and `"1.8.0_432"` for Java 8.
fn java_version(text: &str) -> Option<u32> {
    let mut numbers = text.split('"').nth(1)?.split(['.', '-', '+']);
    match numbers.next()? {
        "1" => numbers.next()?.parse().ok(),
        major => major.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn javas_version_is_read_in_both_spellings() {
        assert_eq!(java_version("openjdk version \"17.0.13\" 2024-10-15\n"), Some(17));
        assert_eq!(java_version("java version \"1.8.0_432\"\n"), Some(8));
        assert_eq!(java_version("openjdk version \"24-ea\" 2025-03-18\n"), Some(24));
        assert_eq!(java_version("The operation couldn't be completed."), None);
    }

    #[test]
    fn what_is_lacking_says_how_to_get_it() {
        let need = Need { program: "x", is_there: || false, from: Source::Apt("x-tools") };
        let lack = Lack { program: need.program, why: why(&need, Some("there is no apt-get")) };
        assert_eq!(lack.to_string(), "x (Debian's package x-tools; there is no apt-get)");
    }

    #[test]
    fn every_need_of_the_vm_can_be_brought() {
        for program in crate::vm::NEEDS {
            assert!(NEEDS.iter().any(|need| need.program == program), "{program}");
        }
    }
}
