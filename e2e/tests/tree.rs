//! The tree: which crate may know which, and that no files of a crate know each other in a circle.
//!
//! A new arrow is a design change. It belongs into [`ARROWS`] and into ARCHITECTURE.md in the same commit.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Folder, name, and what the crate may depend on.
const ARROWS: &[(&str, &str, &[&str])] = &[
    ("lb", "lb", &["edge", "wire"]),
    ("api", "api", &["edge", "wire"]),
    ("store", "store", &["wire"]),
    ("lib/wire", "wire", &[]),
    ("lib/edge", "edge", &["wire"]),
    ("tools/contest", "contest", &["wire"]),
    ("tools/sim", "sim", &["contest", "store", "api", "wire"]),
    ("tools/arena", "arena", &["contest", "wire"]),
    ("tools/measure", "measure", &["arena", "contest", "store", "api", "edge", "wire"]),
    // It reads plans, the slots of a hand-off, and the log that a real store has written.
    ("e2e", "e2e", &["arena", "contest", "edge", "store", "wire"]),
];

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("e2e lies in the workspace").to_owned()
}

/// The crates of this workspace that a manifest depends on, for its tests or otherwise.
fn arrows(manifest: &str) -> BTreeSet<&str> {
    let mut section = "";
    let mut found = BTreeSet::new();
    for line in manifest.lines() {
        if line.starts_with('[') {
            section = line;
        } else if section.ends_with("dependencies]") {
            let name = line.split(['.', ' ', '=']).next().unwrap_or_default();
            found.extend(ARROWS.iter().map(|(_, known, _)| *known).filter(|known| *known == name));
        }
    }
    found
}

fn excess<'a>(manifest: &'a str, allowed: &[&str]) -> Vec<&'a str> {
    arrows(manifest).into_iter().filter(|name| !allowed.contains(name)).collect()
}

#[test]
fn each_crate_knows_only_what_the_architecture_allows() {
    for (folder, name, allowed) in ARROWS {
        let manifest = fs::read_to_string(workspace().join(folder).join("Cargo.toml")).expect(folder);
        assert_eq!(
            excess(&manifest, allowed),
            [""; 0],
            "{name} has an arrow that ARCHITECTURE.md does not draw"
        );
    }
    let root = fs::read_to_string(workspace().join("Cargo.toml")).expect("the workspace");
    let members = root.split("members = [").nth(1).and_then(|rest| rest.split(']').next()).expect("members");
    assert_eq!(members.matches('"').count() / 2, ARROWS.len(), "each member has its arrows: {members}");
}

#[test]
fn an_added_arrow_is_found() {
    let manifest = "[package]\nname = \"lb\"\n[dependencies]\nwire.workspace = true\n[dev-dependencies]\narena.workspace = true\n";
    assert_eq!(excess(manifest, &["wire"]), ["arena"]);
    assert_eq!(excess("[dependencies]\nstore = { workspace = true }\n", &["wire"]), ["store"]);
}

/// The path of a module inside its crate; the crate itself is empty.
type Module = Vec<String>;

/// The code of each module, without comments and unit tests.
fn modules(src: &Path) -> BTreeMap<Module, String> {
    let mut modules = BTreeMap::new();
    let mut folders = vec![src.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder of the crate") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let below = path.strip_prefix(src).expect("a file of the crate").with_extension("");
                let mut module: Module =
                    below.iter().map(|part| part.to_string_lossy().into_owned()).collect();
                module.retain(|part| part != "lib");
                if module != ["main"] {
                    modules.insert(module, code(&fs::read_to_string(&path).expect("a file")));
                }
            }
        }
    }
    modules
}

/// Unit tests stand at the end of a file, and inline modules are indented.
fn code(text: &str) -> String {
    let text = text.split("\n#[cfg(test)]\nmod ").next().unwrap_or_default();
    let lines = text.lines().map(|line| line.split("//").next().unwrap_or_default());
    lines.filter(|line| !line.starts_with("    use ")).collect::<Vec<_>>().join("\n")
}

/// The paths that a `use` names, one for each leaf.
fn leaves(prefix: &str, tree: &str, found: &mut Vec<String>) {
    let tree = tree.trim();
    let Some((before, rest)) = tree.split_once('{') else {
        let leaf = tree.split(" as ").next().unwrap_or_default().trim();
        return found.push(format!("{prefix}{leaf}"));
    };
    let (prefix, mut depth, mut start) = (format!("{prefix}{}", before.trim()), 0, 0);
    let inner = rest.strip_suffix('}').unwrap_or(rest);
    for (at, char) in inner.char_indices() {
        match char {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                leaves(&prefix, &inner[start..at], found);
                start = at + 1;
            }
            _ => (),
        }
    }
    if !inner[start..].trim().is_empty() {
        leaves(&prefix, &inner[start..], found);
    }
}

/// All paths of a file that may name another one.
fn paths(code: &str, children: &BTreeSet<&str>) -> Vec<String> {
    let mut found = Vec::new();
    let (mut rest, mut body) = (code, String::new());
    while let Some(at) = rest.find("use ") {
        let is_word = rest[..at].chars().next_back().is_none_or(|char| char.is_whitespace());
        let Some(end) = rest[at..].find(';').filter(|_| is_word) else {
            body += &rest[..at + 4];
            rest = &rest[at + 4..];
            continue;
        };
        leaves("", &rest[at + 4..at + end], &mut found);
        body += &rest[..at];
        rest = &rest[at + end + 1..];
    }
    body += rest;
    let words = body.split(|char: char| !(char.is_alphanumeric() || char == '_' || char == ':'));
    let is_path = |word: &&str| {
        let first = word.split("::").next().unwrap_or_default();
        word.contains("::") && (["crate", "super", "self"].contains(&first) || children.contains(first))
    };
    found.extend(words.filter(is_path).map(str::to_owned));
    found
}

/// Which modules each module names.
fn edges(modules: &BTreeMap<Module, String>) -> BTreeMap<&Module, BTreeSet<&Module>> {
    let mut edges = BTreeMap::new();
    for (module, code) in modules {
        let is_child = |other: &&Module| other.len() == module.len() + 1 && other.starts_with(module);
        let children: BTreeSet<&str> =
            modules.keys().filter(is_child).map(|child| child[module.len()].as_str()).collect();
        let mut named = BTreeSet::new();
        // The root only lists its modules and repeats their names.
        for path in if module.is_empty() { Vec::new() } else { paths(code, &children) } {
            let mut parts: Vec<&str> = path.split("::").collect();
            let mut base = module.clone();
            match parts[0] {
                "crate" => base.clear(),
                "super" => (),
                "self" => drop(parts.remove(0)),
                first if children.contains(first) => (),
                _ => continue,
            }
            parts.retain(|part| *part != "crate");
            while parts.first() == Some(&"super") {
                base.pop();
                parts.remove(0);
            }
            base.extend(parts.iter().map(|part| (*part).to_owned()));
            while !modules.contains_key(&base) && !base.is_empty() {
                base.pop();
            }
            if let Some((target, _)) = modules.get_key_value(&base).filter(|(target, _)| *target != module) {
                named.insert(target);
            }
        }
        edges.insert(module, named);
    }
    edges
}

/// A module that reaches itself, and the way.
fn circle(modules: &BTreeMap<Module, String>) -> Option<String> {
    let edges = edges(modules);
    for start in modules.keys() {
        let mut ways: Vec<Vec<&Module>> = vec![vec![start]];
        let mut seen = BTreeSet::new();
        while let Some(way) = ways.pop() {
            for next in &edges[way[way.len() - 1]] {
                if *next == start {
                    let names = way.iter().chain([next]).map(|module| module.join("::"));
                    return Some(names.collect::<Vec<_>>().join(" -> "));
                }
                if seen.insert(*next) {
                    ways.push(way.iter().copied().chain([*next]).collect());
                }
            }
        }
    }
    None
}

#[test]
fn no_files_know_each_other_in_a_circle() {
    for (folder, name, _) in ARROWS.iter().filter(|(_, name, _)| *name != "e2e") {
        let modules = modules(&workspace().join(folder).join("src"));
        assert!(!modules.is_empty(), "{name}");
        assert_eq!(circle(&modules), None, "{name}");
    }
}

#[test]
fn a_circle_of_files_is_found() {
    let tree = |b: &str| {
        let files = [("", "pub mod a;\nmod b;"), ("a", "use crate::b::{B, C};"), ("b", b)];
        files.map(|(path, code)| {
            let module = path.split("::").filter(|part| !part.is_empty()).map(str::to_owned).collect();
            (module, code.to_owned())
        })
    };
    assert_eq!(circle(&tree("use std::io;").into()), None);
    assert!(circle(&tree("fn f() -> super::a::A { todo() }").into()).is_some());
    assert!(circle(&tree("use {crate::a, std::io};").into()).is_some());
}
