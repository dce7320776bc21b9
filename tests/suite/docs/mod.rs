//! README.md and the pages of `docs/`: their size, their links, and every session that they
//! show.

mod links;
mod sessions;

use std::path::{Path, PathBuf};

/// Returns the path of a file of the project.
fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// Returns the text of a file of the project.
#[track_caller]
fn text(name: &str) -> String {
    std::fs::read_to_string(file(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Returns the names of all Markdown files, sorted.
fn pages() -> Vec<String> {
    let mut names = Vec::new();
    for folder in ["", "docs", ".github", ".github/ISSUE_TEMPLATE"] {
        let Ok(entries) = std::fs::read_dir(file(folder)) else { continue };
        let here = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        let here = here.filter(|name| name.ends_with(".md"));
        names.extend(here.map(|name| Path::new(folder).join(name).to_str().unwrap().to_owned()));
    }
    names.sort();
    names
}

/// Returns the lines of a page, each with its number and, inside of a fenced block, the word
/// after the fence.
fn lines(page: &str) -> Vec<(usize, Option<&str>, &str)> {
    let mut fence: Option<&str> = None;
    let mut lines = Vec::new();
    for (index, line) in page.lines().enumerate() {
        match (line.strip_prefix("```"), fence) {
            (Some(word), None) => fence = Some(word.trim()),
            (Some(_), Some(_)) => fence = None,
            (None, _) => lines.push((index + 1, fence, line)),
        }
    }
    lines
}
