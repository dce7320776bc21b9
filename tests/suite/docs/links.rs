//! The size of README.md, and the links of all pages.

use super::{file, lines, pages, text};
use crate::support::{Dir, run};
use std::path::{Component, Path, PathBuf};

#[test]
fn the_readme_is_short_and_narrow() {
    let readme = text("README.md");
    let count = readme.lines().count();
    assert!(count <= 150, "README.md has {count} lines");
    for (number, _, line) in lines(&readme) {
        assert!(line.chars().count() <= 120, "README.md:{number} has more than 120 columns");
    }
}

/// Returns the text of an SVG picture, one line for each of its elements.
fn drawn(picture: &str) -> Vec<String> {
    let elements = picture.lines().filter(|line| line.trim_start().starts_with("<text "));
    let texts = elements.map(|line| {
        let outside = |part: &str| part.split_once('>').map_or(String::new(), |(_, text)| text.to_owned());
        let text: String = line.split('<').skip(1).map(outside).collect();
        text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    });
    texts.collect()
}

#[test]
fn the_picture_of_a_terminal_shows_what_the_program_prints() {
    let shown = drawn(&text("docs/terminal.svg"));
    let after = |command: &str| {
        let at = shown.iter().position(|line| *line == format!("$ {command}")).unwrap();
        let end = shown[at + 1..].iter().position(|line| line.starts_with("$ "));
        shown[at + 1..end.map_or(shown.len(), |end| at + 1 + end)].to_vec()
    };
    let help = run(&["help"]).expect(0).out;
    let help: Vec<&str> = help.lines().filter(|line| !line.is_empty()).collect();
    assert_eq!(after("zigsvc help"), help);
    assert_eq!(after("zigsvc stauts"), run(&["stauts"]).expect(2).err.lines().collect::<Vec<_>>());
    let dir = Dir::new();
    dir.write("zigsvc.conf", "supervise = [\"jobs\", \"ten-letter\"]\n");
    std::fs::create_dir(dir.path("programs")).unwrap();
    dir.write("programs/ten-letter.conf", "command = [\"/bin/true\"]\n");
    let table = dir.zigsvc(&["status", "--all"]).out;
    assert_eq!(after("zigsvc status --all")[0], table.lines().next().unwrap());
}

#[test]
fn each_page_has_a_title_and_begins_with_an_example() {
    for name in pages().iter().filter(|name| name.starts_with("docs/")) {
        let page = text(name);
        assert!(page.starts_with("# "), "{name} has no title");
        // Pages about the inside of the program begin with what they are about.
        if ["design", "proof", "threats", "faults"].iter().any(|inside| name.contains(inside)) {
            continue;
        }
        let first = lines(&page).into_iter().find(|(_, fence, _)| fence.is_some());
        let (number, _, _) = first.unwrap_or_else(|| panic!("{name} has no example"));
        assert!(number <= 14, "{name} has its first example in line {number}");
    }
}

#[test]
fn the_readme_leads_to_every_page() {
    let readme = text("README.md");
    for name in pages().iter().filter(|name| name.starts_with("docs/")) {
        assert!(readme.contains(&format!("]({name})")), "README.md has no link to {name}");
    }
}

/// Returns the name of a heading in links: its letters and digits in lower case, with hyphens
/// for blanks.
fn anchor(heading: &str) -> String {
    let kept = heading.to_lowercase();
    let kept = kept.chars().filter(|letter| letter.is_alphanumeric() || " -_".contains(*letter));
    kept.map(|letter| if letter == ' ' { '-' } else { letter }).collect()
}

/// Returns the anchors of a page.
fn anchors(page: &str) -> Vec<String> {
    let headings =
        lines(page).into_iter().filter(|(_, fence, line)| fence.is_none() && line.starts_with('#'));
    headings.map(|(_, _, line)| anchor(line.trim_start_matches('#').trim())).collect()
}

/// Returns the path without `.` and `..`.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(plain.pop()),
            Component::CurDir => {}
            part => plain.push(part),
        }
    }
    plain
}

#[test]
fn every_link_leads_to_a_file_and_a_heading() {
    let mut count = 0;
    for name in pages() {
        let page = text(&name);
        for (number, fence, line) in lines(&page) {
            if fence.is_some() {
                continue;
            }
            for target in line.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
                if target.starts_with("https://") {
                    continue;
                }
                count += 1;
                let (path, heading) = target.split_once('#').unwrap_or((target, ""));
                let folder = Path::new(&name).parent().unwrap();
                let path = if path.is_empty() { PathBuf::from(&name) } else { plain(&folder.join(path)) };
                assert!(file(path.to_str().unwrap()).exists(), "{name}:{number}: no file for {target}");
                if !heading.is_empty() {
                    let there = anchors(&text(path.to_str().unwrap()));
                    assert!(
                        there.iter().any(|one| one == heading),
                        "{name}:{number}: no heading for {target}"
                    );
                }
            }
        }
    }
    assert!(count > 40, "{count}");
}

#[test]
fn the_packages_ship_every_page_that_a_shipped_page_leads_to() {
    let lists = [text("Cargo.toml"), text("packaging/tarball"), text("packaging/install.sh")];
    for name in pages().iter().filter(|name| !name.starts_with(".github/")) {
        let (folder, pattern) =
            if name.starts_with("docs/") { ("docs/", "docs/*.md") } else { ("", name.as_str()) };
        let asset = format!("[\"{pattern}\", \"usr/share/doc/zigsvc/{folder}\", \"644\"]");
        assert!(lists[0].contains(&asset), "Cargo.toml has no asset {asset}");
        for list in &lists[1..] {
            assert!(list.contains(pattern), "{pattern} is in no package");
        }
    }
    for name in pages() {
        assert!(
            !text(&name).contains("](../src") && !text(&name).contains("](src"),
            "{name} leads to the sources"
        );
    }
}
