//! Layer 1: the runtime's own limit, set from outside through the environment.
//!
//! Nothing the user set is overridden: flags are appended, and where the user already gave the limit it stays. What a
//! limit does when it is reached differs from runtime to runtime, and some have none at all; each says so, because
//! `status` shows it.

mod detect;
mod words;

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use crate::units::Bytes;
pub use detect::{Hints, detect};
use words::{flag_in, program_flags, words};

const MIB: u64 = 1024 * 1024;
/// glibc makes up to eight arenas per core; each keeps what it once grew to.
const ARENAS_MAX: &str = "2";

/// What runs the service's code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Runtime {
    Node,
    Jvm,
    Go,
    DotNet,
    Deno,
    Bun,
    Ruby,
    Python,
    /// A program on glibc's allocator, when the user says so.
    Glibc,
    /// A program of which nothing is known.
    Native,
}

impl Runtime {
    pub const ALL: [Self; 10] = [
        Self::Node,
        Self::Jvm,
        Self::Go,
        Self::DotNet,
        Self::Deno,
        Self::Bun,
        Self::Ruby,
        Self::Python,
        Self::Glibc,
        Self::Native,
    ];

    /// The word for it in `memory.runtime` and in `status`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Jvm => "jvm",
            Self::Go => "go",
            Self::DotNet => "dotnet",
            Self::Deno => "deno",
            Self::Bun => "bun",
            Self::Ruby => "ruby",
            Self::Python => "python",
            Self::Glibc => "glibc",
            Self::Native => "native",
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|runtime| runtime.name() == name)
    }

    /// Whether reaching the limit ends the process: then the recycle line has to come first.
    pub const fn aborts(self) -> bool {
        match self {
            Self::Node | Self::Deno => true,
            Self::Jvm
            | Self::Go
            | Self::DotNet
            | Self::Bun
            | Self::Ruby
            | Self::Python
            | Self::Glibc
            | Self::Native => false,
        }
    }
}

/// What layer 1 does for one service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SoftLimit {
    /// Variables to set, each with its whole new value.
    pub variables: Vec<(String, String)>,
    /// What enforces the limit, for `status` and `check`.
    pub how: String,
    /// What it cannot do.
    pub note: Option<String>,
}

/// The environment that carries `soft` to the runtime. `existing` is what the service would get without it.
pub fn environment<'e>(
    runtime: Runtime,
    soft: Bytes,
    argv: &[&str],
    existing: impl Fn(&str) -> Option<&'e str>,
) -> SoftLimit {
    let user = User { argv: words(argv), existing: &existing };
    match runtime {
        Runtime::Node => node(soft, &user),
        Runtime::Deno => deno(soft, &user),
        Runtime::Jvm => jvm(soft, &user),
        Runtime::Go => go(soft, &user, None),
        Runtime::Native => go(soft, &user, Some(NATIVE_NOTE)),
        Runtime::DotNet => dotnet(soft, &user),
        Runtime::Bun => bun(soft, &user),
        Runtime::Ruby => allocator(&user, RUBY_NOTE),
        Runtime::Python => allocator(&user, PYTHON_NOTE),
        Runtime::Glibc => allocator(&user, GLIBC_NOTE),
    }
}

const V8_NOTE: &str = "it is an abort, not a brake, and counts the JavaScript heap alone: Buffers and native memory \
                       are outside it, so the recycle line has to come first";
const JVM_NOTE: &str = "the heap alone; metaspace, threads and direct buffers come on top, and a JVM uses its whole \
                        heap before it collects, so keep the recycle line well above it";
const GO_NOTE: &str = "a target, not a wall: the collector works harder near it, and live data can pass it";
const NATIVE_NOTE: &str = "only a Go program heeds it; nothing is known of any other native program";
const DOTNET_NOTE: &str = "over it the runtime throws OutOfMemoryException; native memory is outside it";
const BUN_NOTE: &str = "Bun has no heap limit: its collector only works harder, as on a machine of this size";
const RUBY_NOTE: &str = "damping, not a limit: Ruby has none (RUBY_GC_HEAP_* paces the collector), so the recycle line acts first";
const PYTHON_NOTE: &str = "damping, not a limit: CPython has none, so the recycle line acts first";
const GLIBC_NOTE: &str = "damping, not a limit: it bounds what malloc keeps back, and slows programs whose many threads all allocate";

/// What the user said already, on the command line or in the environment.
struct User<'a, 'e> {
    argv: Vec<String>,
    existing: &'a dyn Fn(&str) -> Option<&'e str>,
}

impl<'e> User<'_, 'e> {
    fn variable(&self, name: &str) -> Option<&'e str> {
        (self.existing)(name).filter(|value| !value.is_empty())
    }

    /// The variable among `names` that is set at all.
    fn sets<'n>(&self, names: &[&'n str]) -> Option<&'n str> {
        names.iter().copied().find(|name| self.variable(name).is_some())
    }

    /// The variable among `names` whose text has one of `flags`.
    fn flag_in_variable<'n>(&self, names: &[&'n str], flags: &[&str]) -> Option<&'n str> {
        let has = |name: &&str| self.variable(name).is_some_and(|text| flag_in(&words(&[text]), flags));
        names.iter().copied().find(has)
    }

    /// `name` with `addition` behind whatever the user put there.
    fn appended(&self, name: &str, separator: &str, addition: &str) -> (String, String) {
        let value = match self.variable(name) {
            Some(own) => format!("{own}{separator}{addition}"),
            None => addition.to_owned(),
        };
        (name.to_owned(), value)
    }
}

/// V8 takes its flags with dashes or underscores; they are compared with dashes.
const V8_FLAGS: [&str; 2] = ["--max-old-space-size", "--max-heap-size"];

fn node(soft: Bytes, user: &User<'_, '_>) -> SoftLimit {
    if flag_in(program_flags(&user.argv), &V8_FLAGS) {
        return users("the command line", Some(V8_NOTE));
    }
    if let Some(name) = user.flag_in_variable(&["NODE_OPTIONS"], &V8_FLAGS) {
        return users(name, Some(V8_NOTE));
    }
    let flag = format!("--max-old-space-size={}", mebibytes(soft));
    set(user.appended("NODE_OPTIONS", " ", &flag), &flag, V8_NOTE)
}

fn deno(soft: Bytes, user: &User<'_, '_>) -> SoftLimit {
    // Given as --v8-flags=--max-old-space-size=N, so it is looked for inside the words.
    if user.argv.iter().any(|word| word.starts_with("--v8-flags") && names_heap_size(word)) {
        return users("the command line", Some(V8_NOTE));
    }
    if user.variable("DENO_V8_FLAGS").is_some_and(names_heap_size) {
        return users("DENO_V8_FLAGS", Some(V8_NOTE));
    }
    let flag = format!("--max-old-space-size={}", mebibytes(soft));
    set(user.appended("DENO_V8_FLAGS", ",", &flag), &flag, V8_NOTE)
}

fn names_heap_size(text: &str) -> bool {
    let dashed = text.replace('_', "-");
    V8_FLAGS.iter().any(|flag| dashed.contains(flag))
}

fn jvm(soft: Bytes, user: &User<'_, '_>) -> SoftLimit {
    const FLAGS: [&str; 5] =
        ["-Xmx", "-XX:MaxHeapSize", "-XX:MaxRAMPercentage", "-XX:MaxRAMFraction", "-XX:MaxRAM"];
    const VARIABLES: [&str; 3] = ["JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "_JAVA_OPTIONS"];
    const WHEN_FULL: [&str; 3] =
        ["-XX:+ExitOnOutOfMemoryError", "-XX:+CrashOnOutOfMemoryError", "-XX:OnOutOfMemoryError"];
    if flag_in(&user.argv, &FLAGS) {
        return users("the command line", Some(JVM_NOTE));
    }
    if let Some(name) = user.flag_in_variable(&VARIABLES, &FLAGS) {
        return users(name, Some(JVM_NOTE));
    }
    let flag = format!("-Xmx{}m", mebibytes(soft));
    // Without it a JVM whose heap is full loses threads one by one and limps on, deaf to its stop signal.
    let says_what_then =
        flag_in(&user.argv, &WHEN_FULL) || user.flag_in_variable(&VARIABLES, &WHEN_FULL).is_some();
    let flags = if says_what_then { flag.clone() } else { format!("{flag} {}", WHEN_FULL[0]) };
    set(user.appended("JAVA_TOOL_OPTIONS", " ", &flags), &flag, JVM_NOTE)
}

fn go(soft: Bytes, user: &User<'_, '_>, doubt: Option<&str>) -> SoftLimit {
    let note = doubt.unwrap_or(GO_NOTE);
    if let Some(name) = user.sets(&["GOMEMLIMIT"]) {
        return users(name, Some(note));
    }
    let value = format!("{}MiB", mebibytes(soft));
    set(("GOMEMLIMIT".to_owned(), value.clone()), &value, note)
}

fn dotnet(soft: Bytes, user: &User<'_, '_>) -> SoftLimit {
    const VARIABLES: [&str; 4] = [
        "DOTNET_GCHeapHardLimit",
        "DOTNET_GCHeapHardLimitPercent",
        "COMPlus_GCHeapHardLimit",
        "COMPlus_GCHeapHardLimitPercent",
    ];
    if let Some(name) = user.sets(&VARIABLES) {
        return users(name, Some(DOTNET_NOTE));
    }
    // The runtime reads its variables as hexadecimal, with or without 0x.
    let value = format!("0x{:X}", soft.0);
    set((VARIABLES[0].to_owned(), value.clone()), &value, DOTNET_NOTE)
}

fn bun(soft: Bytes, user: &User<'_, '_>) -> SoftLimit {
    const VARIABLE: &str = "BUN_JSC_forceRAMSize";
    if let Some(name) = user.sets(&[VARIABLE]) {
        return users(name, Some(BUN_NOTE));
    }
    let value = soft.0.to_string();
    set((VARIABLE.to_owned(), value.clone()), &value, BUN_NOTE)
}

/// No limit exists; fewer malloc arenas at least keep freed memory from spreading.
fn allocator(user: &User<'_, '_>, note: &str) -> SoftLimit {
    if user.variable("LD_PRELOAD").is_some_and(|libraries| libraries.contains("jemalloc")) {
        return jemalloc(user, note);
    }
    if let Some(name) = user.sets(&["MALLOC_ARENA_MAX"]) {
        return users(name, Some(note));
    }
    if user.variable("GLIBC_TUNABLES").is_some_and(|text| text.contains("glibc.malloc.arena_max")) {
        return users("GLIBC_TUNABLES", Some(note));
    }
    set(("MALLOC_ARENA_MAX".to_owned(), ARENAS_MAX.to_owned()), ARENAS_MAX, note)
}

fn jemalloc(user: &User<'_, '_>, note: &str) -> SoftLimit {
    if user.variable("MALLOC_CONF").is_some_and(|text| text.contains("narenas:")) {
        return users("MALLOC_CONF", Some(note));
    }
    let option = format!("narenas:{ARENAS_MAX}");
    set(user.appended("MALLOC_CONF", ",", &option), &option, note)
}

fn set(variable: (String, String), shown: &str, note: &str) -> SoftLimit {
    let flag = shown.starts_with('-');
    let how = if flag { format!("{shown} in {}", variable.0) } else { format!("{}={shown}", variable.0) };
    SoftLimit { variables: vec![variable], how, note: Some(note.to_owned()) }
}

fn users(place: &str, note: Option<&str>) -> SoftLimit {
    SoftLimit {
        variables: Vec::new(),
        how: format!("your own setting in {place}, left as it is"),
        note: note.map(str::to_owned),
    }
}

/// Runtimes take whole mebibytes; none takes zero.
fn mebibytes(size: Bytes) -> u64 {
    (size.0 / MIB).max(1)
}

#[cfg(test)]
mod tests;
