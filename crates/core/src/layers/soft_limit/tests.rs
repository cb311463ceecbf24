use super::*;
use proptest::prelude::*;

const SOFT: Bytes = Bytes::mib(256);

fn with(runtime: Runtime, argv: &[&str], own: &[(&str, &'static str)]) -> SoftLimit {
    environment(runtime, SOFT, argv, |name| {
        own.iter().find(|(given, _)| *given == name).map(|(_, value)| *value)
    })
}

fn variable(limit: &SoftLimit) -> (&str, &str) {
    let (name, value) = &limit.variables[0];
    (name, value)
}

#[test]
fn each_runtime_gets_its_own_variable() {
    for (runtime, name, value) in [
        (Runtime::Node, "NODE_OPTIONS", "--max-old-space-size=256"),
        (Runtime::Deno, "DENO_V8_FLAGS", "--max-old-space-size=256"),
        (Runtime::Jvm, "JAVA_TOOL_OPTIONS", "-Xmx256m -XX:+ExitOnOutOfMemoryError"),
        (Runtime::Go, "GOMEMLIMIT", "256MiB"),
        (Runtime::Native, "GOMEMLIMIT", "256MiB"),
        (Runtime::DotNet, "DOTNET_GCHeapHardLimit", "0x10000000"),
        (Runtime::Bun, "BUN_JSC_forceRAMSize", "268435456"),
        (Runtime::Ruby, "MALLOC_ARENA_MAX", "2"),
        (Runtime::Python, "MALLOC_ARENA_MAX", "2"),
        (Runtime::Glibc, "MALLOC_ARENA_MAX", "2"),
    ] {
        assert_eq!(variable(&with(runtime, &["x"], &[])), (name, value), "{runtime:?}");
    }
}

#[test]
fn every_runtime_says_how_and_what_it_cannot_do() {
    for runtime in Runtime::ALL {
        let limit = with(runtime, &["x"], &[]);
        assert!(!limit.how.is_empty() && limit.note.is_some(), "{runtime:?}");
        assert_eq!(Runtime::named(runtime.name()), Some(runtime));
    }
    assert_eq!(with(Runtime::Node, &["node"], &[]).how, "--max-old-space-size=256 in NODE_OPTIONS");
    assert_eq!(with(Runtime::Go, &["x"], &[]).how, "GOMEMLIMIT=256MiB");
}

#[test]
fn what_the_user_wrote_stays_in_front() {
    let node = with(Runtime::Node, &["node"], &[("NODE_OPTIONS", "--require \"./my setup.js\"")]);
    assert_eq!(variable(&node).1, "--require \"./my setup.js\" --max-old-space-size=256");
    let deno = with(Runtime::Deno, &["deno"], &[("DENO_V8_FLAGS", "--expose-gc")]);
    assert_eq!(variable(&deno).1, "--expose-gc,--max-old-space-size=256");
    let ruby = [("LD_PRELOAD", "/usr/lib/libjemalloc.so.2"), ("MALLOC_CONF", "dirty_decay_ms:1000")];
    let expected = ("MALLOC_CONF", "dirty_decay_ms:1000,narenas:2");
    assert_eq!(variable(&with(Runtime::Ruby, &["ruby"], &ruby)), expected);
}

#[test]
fn the_users_own_limit_is_left_alone_wherever_it_stands() {
    for (runtime, argv, own) in [
        (Runtime::Node, &["node", "--max-old-space-size=99", "x.js"][..], &[][..]),
        (Runtime::Node, &["node", "--max_old_space_size=99", "x.js"], &[]),
        (Runtime::Node, &["sh", "-c", "node --max-old-space-size 99 x.js"], &[]),
        (Runtime::Node, &["node", "x.js"], &[("NODE_OPTIONS", "--inspect --max_old_space_size=99")]),
        (Runtime::Node, &["node", "x.js"], &[("NODE_OPTIONS", "\"--max-old-space-size=99\"")]),
        (Runtime::Deno, &["deno", "run", "--v8-flags=--max-old-space-size=99", "x.ts"], &[]),
        (Runtime::Deno, &["deno"], &[("DENO_V8_FLAGS", "--a,--max-old-space-size=99")]),
        (Runtime::Jvm, &["java", "-Xmx1g", "-jar", "x.jar"], &[]),
        (Runtime::Jvm, &["java"], &[("JDK_JAVA_OPTIONS", "-XX:MaxRAMPercentage=50")]),
        (Runtime::Jvm, &["java"], &[("JAVA_TOOL_OPTIONS", "-Da=b -XX:MaxHeapSize=1g")]),
        (Runtime::Go, &["x"], &[("GOMEMLIMIT", "off")]),
        (Runtime::DotNet, &["dotnet"], &[("COMPlus_GCHeapHardLimitPercent", "30")]),
        (Runtime::Bun, &["bun"], &[("BUN_JSC_forceRAMSize", "1")]),
        (Runtime::Ruby, &["ruby"], &[("MALLOC_ARENA_MAX", "1")]),
        (Runtime::Python, &["python"], &[("GLIBC_TUNABLES", "glibc.malloc.arena_max=1")]),
        (Runtime::Ruby, &["ruby"], &[("LD_PRELOAD", "libjemalloc.so"), ("MALLOC_CONF", "narenas:4")]),
    ] {
        let limit = with(runtime, argv, own);
        assert!(limit.variables.is_empty(), "{runtime:?} {argv:?} {own:?}: {limit:?}");
        assert!(limit.how.contains("your own setting"), "{}", limit.how);
    }
}

#[test]
fn an_argument_of_the_users_script_is_no_limit() {
    let limit = with(Runtime::Node, &["node", "x.js", "--max-old-space-size=9"], &[]);
    assert_eq!(variable(&limit).0, "NODE_OPTIONS");
}

#[test]
fn an_empty_variable_counts_as_unset_and_a_tiny_limit_is_never_zero() {
    let limit = with(Runtime::Node, &["node"], &[("NODE_OPTIONS", "")]);
    assert_eq!(variable(&limit).1, "--max-old-space-size=256");
    let tiny = environment(Runtime::Node, Bytes(1), &["node"], |_| None);
    assert_eq!(variable(&tiny).1, "--max-old-space-size=1");
}

proptest! {
    #[test]
    fn the_users_text_is_always_a_prefix_of_what_is_set(own in ".{0,60}", word in ".{0,30}", soft: u64) {
        for runtime in Runtime::ALL {
            let limit = environment(runtime, Bytes(soft), &[&word], |name| {
                matches!(name, "NODE_OPTIONS" | "DENO_V8_FLAGS" | "JAVA_TOOL_OPTIONS" | "MALLOC_CONF").then_some(own.as_str())
            });
            for (name, value) in &limit.variables {
                let appended = matches!(name.as_str(), "NODE_OPTIONS" | "DENO_V8_FLAGS" | "JAVA_TOOL_OPTIONS");
                prop_assert!(!appended || value.starts_with(&own), "{name}={value}");
            }
        }
    }

    #[test]
    fn detecting_never_panics(argv in proptest::collection::vec(".{0,20}", 0..5), line in proptest::option::of(".{0,30}")) {
        let argv: Vec<&str> = argv.iter().map(String::as_str).collect();
        let _ = detect(&argv, Hints { first_line: line.as_deref(), is_go: false });
    }
}

#[test]
fn a_jvm_that_is_told_what_to_do_when_full_is_not_told_again() {
    let own = |name: &str| (name == "JAVA_TOOL_OPTIONS").then_some("-XX:OnOutOfMemoryError=/bin/true");
    let limit = environment(Runtime::Jvm, Bytes::mib(256), &["java", "-jar", "x.jar"], own);
    assert_eq!(limit.variables[0].1, "-XX:OnOutOfMemoryError=/bin/true -Xmx256m");
}
