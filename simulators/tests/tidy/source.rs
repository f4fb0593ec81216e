//! A Rust source file as far as these rules need to understand it: without comments and strings, with its paths.

use crate::Finding;

/// A Rust source file.
pub(crate) struct Source {
    /// Its place from the top of the repository.
    pub(crate) path: String,
    /// Its module, such as `crate::engine::ocpp::v16`; empty for a file that is not under a `src/`.
    pub(crate) module: Vec<String>,
    /// The text with comments, strings and character literals blanked out, line by line as in the file.
    pub(crate) code: Vec<String>,
    /// How many lines come before the first `#[cfg(test)]`; 0 for a file of tests.
    pub(crate) production_lines: usize,
}

/// A path in the code, made absolute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NamedPath {
    /// Such as `["crate", "engine", "units", "Current"]`.
    pub(crate) parts: Vec<String>,
    /// The line, from 1.
    pub(crate) line: usize,
}

impl Source {
    pub(crate) fn new(path: &str, text: &str) -> Self {
        let code: Vec<String> = blank(text).lines().map(str::to_owned).collect();
        let is_tests = path.starts_with("tests/")
            || path.contains("/tests/")
            || path.ends_with("/tests.rs")
            || path.ends_with("_tests.rs");
        let first_test = code.iter().position(|line| line.trim_start().starts_with("#[cfg(test)]"));
        let production_lines = if is_tests { 0 } else { first_test.unwrap_or(code.len()) };
        Self { path: path.to_owned(), module: module_of(path), code, production_lines }
    }

    /// All paths that begin with `crate`, `super`, `self` or a package's name, groups taken apart.
    pub(crate) fn paths(&self) -> Vec<NamedPath> {
        let tokens = tokens(&self.code);
        let mut paths = Vec::new();
        let mut at = 0;
        while at < tokens.len() {
            let before = at.checked_sub(1).map_or("", |before| tokens[before].text.as_str());
            let goes_on = tokens.get(at + 1).is_some_and(|next| next.text == "::");
            let is_path = tokens[at].is_word() && (goes_on || before == "use") && !matches!(before, "::" | ".");
            let next = if is_path { expand(&tokens, at, &mut Vec::new(), &mut paths) } else { at };
            at = next.max(at + 1);
        }
        for path in &mut paths {
            path.parts = self.absolute(path);
        }
        paths
    }

    /// The paths outside of tests.
    pub(crate) fn production_paths(&self) -> Vec<NamedPath> {
        self.paths().into_iter().filter(|path| path.line <= self.production_lines).collect()
    }

    fn absolute(&self, path: &NamedPath) -> Vec<String> {
        let mut base = self.module.clone();
        if path.line > self.production_lines {
            // Inside `mod tests`, one deeper.
            base.push("tests".to_owned());
        }
        let mut rest = path.parts.as_slice();
        let is_relative = rest.first().is_some_and(|first| first == "self" || first == "super");
        if !is_relative {
            return rest.to_vec();
        }
        while let Some((first, others)) = rest.split_first() {
            match first.as_str() {
                "self" => {}
                "super" => drop(base.pop()),
                _ => break,
            }
            rest = others;
        }
        base.extend_from_slice(rest);
        base
    }
}

/// `todo!`, `dbg!` and ignored tests; clippy knows the first two, unless somebody tells it not to.
pub(crate) fn check_words(source: &Source) -> Vec<Finding> {
    let rules = [
        ("todo!", "finish it, or do not begin it"),
        ("unimplemented!", "finish it, or do not begin it"),
        ("dbg!", "take it out"),
        ("#[ignore", "make it quick and deterministic, or put it under `make soak`"),
        ("#[allow(", "write #[expect(.., reason = \"..\")]"),
        ("#![allow(", "write #[expect(.., reason = \"..\")] at the one place"),
    ];
    let mut findings = Vec::new();
    for (number, line) in source.code.iter().enumerate() {
        for (word, remedy) in rules.iter().filter(|(word, _)| line.contains(word)) {
            findings.push(Finding::new(&source.path, number + 1, format!("`{word}`"), *remedy));
        }
    }
    findings
}

fn module_of(path: &str) -> Vec<String> {
    let (package, inside) = match (path.strip_prefix("src/"), path.strip_prefix("simulators/src/")) {
        (Some(inside), _) => ("crate", inside),
        (_, Some(inside)) => ("simulators", inside),
        _ => return Vec::new(),
    };
    let inside = inside.trim_end_matches(".rs");
    let inside = inside.strip_suffix("/mod").unwrap_or(inside);
    let names = inside.split('/').filter(|name| !matches!(*name, "lib" | "main" | "mod"));
    std::iter::once(package).chain(names).map(str::to_owned).collect()
}

struct Token {
    text: String,
    line: usize,
}

impl Token {
    fn is_word(&self) -> bool {
        self.text.starts_with(|first: char| first.is_alphabetic() || first == '_')
    }
}

fn tokens(code: &[String]) -> Vec<Token> {
    let mut tokens = Vec::new();
    for (number, line) in code.iter().enumerate() {
        let mut rest = line.trim_start();
        while let Some(first) = rest.chars().next() {
            let is_word = |c: char| c.is_alphanumeric() || c == '_';
            let length = if is_word(first) {
                rest.find(|c| !is_word(c)).unwrap_or(rest.len())
            } else if rest.starts_with("::") {
                2
            } else {
                first.len_utf8()
            };
            tokens.push(Token { text: rest[..length].to_owned(), line: number + 1 });
            rest = rest[length..].trim_start();
        }
    }
    tokens
}

/// Collects the paths that begin at `at` and returns where the next token stands.
fn expand(tokens: &[Token], mut at: usize, prefix: &mut Vec<String>, paths: &mut Vec<NamedPath>) -> usize {
    let depth = prefix.len();
    let line = tokens.get(at).map_or(0, |token| token.line);
    while let Some(token) = tokens.get(at) {
        if token.text == "{" {
            at += 1;
            while tokens.get(at).is_some_and(|token| token.text != "}") {
                let next = expand(tokens, at, prefix, paths);
                // `as name`, commas and anything not understood are stepped over.
                at = next.max(at + 1);
                while tokens
                    .get(at)
                    .is_some_and(|token| !token.is_word() && !matches!(token.text.as_str(), "{" | "}" | "*"))
                {
                    at += 1;
                }
            }
            prefix.truncate(depth);
            return at + 1;
        }
        if !(token.is_word() || token.text == "*") {
            break;
        }
        prefix.push(token.text.clone());
        at += 1;
        if tokens.get(at).is_none_or(|next| next.text != "::") {
            break;
        }
        at += 1;
    }
    if prefix.len() > depth {
        paths.push(NamedPath { parts: prefix.clone(), line });
    }
    prefix.truncate(depth);
    if tokens.get(at).is_some_and(|token| token.text == "as") { at + 2 } else { at }
}

/// Replaces comments, strings and character literals by spaces; lines stay where they are.
fn blank(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = match chars[at] {
            '/' if chars.get(at + 1) == Some(&'/') => find(&chars, at, |c| c == '\n'),
            '/' if chars.get(at + 1) == Some(&'*') => block_comment_end(&chars, at),
            '"' => string_end(&chars, at),
            'r' if is_raw_string(&chars, at) => raw_string_end(&chars, at),
            '\'' => char_end(&chars, at),
            _ => at,
        };
        if end == at {
            out.push(chars[at]);
            at += 1;
        } else {
            out.extend(chars[at..end].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
            at = end;
        }
    }
    out
}

fn find(chars: &[char], from: usize, is_end: impl Fn(char) -> bool) -> usize {
    chars[from..].iter().position(|c| is_end(*c)).map_or(chars.len(), |length| from + length)
}

fn block_comment_end(chars: &[char], from: usize) -> usize {
    let mut depth = 0_usize;
    let mut at = from;
    while at + 1 < chars.len() {
        match (chars[at], chars[at + 1]) {
            ('/', '*') => depth += 1,
            ('*', '/') => depth -= 1,
            _ => {
                at += 1;
                continue;
            }
        }
        at += 2;
        if depth == 0 {
            return at;
        }
    }
    chars.len()
}

fn string_end(chars: &[char], from: usize) -> usize {
    let mut at = from + 1;
    while at < chars.len() {
        match chars[at] {
            '\\' => at += 2,
            '"' => return at + 1,
            _ => at += 1,
        }
    }
    chars.len()
}

fn is_raw_string(chars: &[char], at: usize) -> bool {
    let starts_word = at == 0 || !(chars[at - 1].is_alphanumeric() || chars[at - 1] == '_') || chars[at - 1] == 'b';
    let quote = find(chars, at + 1, |c| c != '#');
    starts_word && chars.get(quote) == Some(&'"')
}

fn raw_string_end(chars: &[char], from: usize) -> usize {
    let quote = find(chars, from + 1, |c| c != '#');
    let hashes = quote - from - 1;
    let mut at = quote + 1;
    while at < chars.len() {
        let is_end = chars[at] == '"' && chars[at + 1..].iter().take(hashes).filter(|c| **c == '#').count() == hashes;
        if is_end {
            return at + 1 + hashes;
        }
        at += 1;
    }
    chars.len()
}

/// The end of a character literal; `from` itself where the quote begins a lifetime.
fn char_end(chars: &[char], from: usize) -> usize {
    if chars.get(from + 1) == Some(&'\\') {
        let quote = find(chars, from + 3, |c| c == '\'');
        return (quote + 1).min(chars.len());
    }
    if chars.get(from + 2) == Some(&'\'') { from + 3 } else { from }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(path: &str, text: &str) -> Vec<String> {
        Source::new(path, text).paths().iter().map(|path| format!("{}:{}", path.line, path.parts.join("::"))).collect()
    }

    #[test]
    fn groups_are_taken_apart() {
        let found =
            paths("src/engine/site/mod.rs", "use crate::engine::{units::{A, B as C}, plan, time::*};\nuse sled;");
        assert_eq!(
            found,
            [
                "1:crate::engine::units::A",
                "1:crate::engine::units::B",
                "1:crate::engine::plan",
                "1:crate::engine::time::*",
                "2:sled"
            ]
        );
    }

    #[test]
    fn relative_paths_are_made_absolute() {
        let found =
            paths("src/engine/ocpp/v16.rs", "use super::frame::Frame;\nuse super::super::site::io;\nself::x::y();");
        assert_eq!(
            found,
            ["1:crate::engine::ocpp::frame::Frame", "2:crate::engine::site::io", "3:crate::engine::ocpp::v16::x::y"]
        );
        assert_eq!(paths("src/engine/ocpp/mod.rs", "use super::site;"), ["1:crate::engine::site"]);
        assert_eq!(
            paths("src/engine/units.rs", "#[cfg(test)]\nmod tests {\n use super::*;\n}"),
            ["3:crate::engine::units::*"]
        );
    }

    #[test]
    fn comments_and_strings_do_not_count() {
        let text = "// tokio::spawn\n/* tokio::a /* b */ tokio::c */\nlet a = \"tokio::x\\\" tokio::y\";\nlet b = r#\"tokio::z\"#;\nlet c = '\"'; tokio::real();\nfn f<'a>(x: &'a str) {}";
        assert_eq!(paths("src/engine/a.rs", text), ["5:tokio::real"]);
    }

    #[test]
    fn what_follows_the_first_test_module_is_not_production() {
        let source =
            Source::new("src/engine/a.rs", "fn a() {}\n// #[cfg(test)] in a comment\n#[cfg(test)]\nmod tests {}\n");
        assert_eq!(source.production_lines, 2);
        assert_eq!(Source::new("src/engine/a/tests.rs", "fn a() {}\n").production_lines, 0);
    }

    #[test]
    fn half_done_work_is_found() {
        let source =
            Source::new("src/engine/a.rs", "fn a() {\n    todo!()\n}\n// todo!\n#[ignore = \"slow\"]\nfn b() {}\n");
        let lines: Vec<usize> = check_words(&source).iter().map(|finding| finding.line).collect();
        assert_eq!(lines, [2, 5]);
    }
}
