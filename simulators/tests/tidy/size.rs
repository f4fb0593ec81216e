//! How long a file and a function may be. A limit of 70 lines costs nothing natural: in well-kept code nine functions of
//! ten are shorter than 40.

use crate::Finding;
use crate::source::Source;

const FILE_LINES: usize = 600;
const FUNCTION_LINES: usize = 70;

/// Files and functions that are too long; tests are not counted.
pub(crate) fn check(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    if source.production_lines > FILE_LINES {
        let rule = format!("{} lines without tests, more than {FILE_LINES}", source.production_lines);
        findings.push(Finding::new(&source.path, 1, rule, "split it by noun: one idea per file"));
    }
    for (line, length) in functions(&source.code[..source.production_lines]) {
        if length > FUNCTION_LINES {
            let rule = format!("a function of {length} lines, more than {FUNCTION_LINES}");
            findings.push(Finding::new(&source.path, line, rule, "take a part with a name of its own out of it"));
        }
    }
    findings
}

/// Each function with a body: its line, from 1, and how many lines of code stand from its `fn` to its closing brace.
fn functions(code: &[String]) -> Vec<(usize, usize)> {
    let starts = code.iter().enumerate().filter(|(_, line)| is_function(line));
    starts.filter_map(|(start, _)| Some((start + 1, length(&code[start..])?))).collect()
}

fn is_function(line: &str) -> bool {
    let mut words = line.split_whitespace();
    let modifiers =
        |word: &&str| matches!(*word, "pub" | "pub(crate)" | "pub(super)" | "const" | "async" | "unsafe" | "extern");
    words.find(|word| !modifiers(word)) == Some("fn")
}

fn length(code: &[String]) -> Option<usize> {
    let mut depth = 0_usize;
    let mut lines = 0;
    for line in code {
        lines += usize::from(!line.trim().is_empty());
        for c in line.chars() {
            match c {
                '{' | '(' | '[' => depth += 1,
                ';' if depth == 0 => return None,
                '}' if depth == 1 => return Some(lines),
                '}' | ')' | ']' => depth = depth.saturating_sub(1),
                _ => {}
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_function_is_found_where_it_begins() {
        let body = "    call();\n".repeat(69);
        let text = format!(
            "struct A;\n\nimpl A {{\npub(crate) async fn long(\n    a: [u8; 4],\n) {{\n\n    // why\n{body}}}\n}}\n"
        );
        let findings = check(&Source::new("src/engine/a.rs", &text));
        assert_eq!(findings.len(), 1);
        assert_eq!((findings[0].line, findings[0].rule.as_str()), (4, "a function of 73 lines, more than 70"));
    }

    #[test]
    fn short_functions_and_declarations_are_fine() {
        let text = format!("trait T {{\n    fn declared(&self, a: [u8; 2]);\n}}\n{}", "fn a() {\n}\n".repeat(60));
        assert_eq!(check(&Source::new("src/engine/a.rs", &text)), []);
    }

    #[test]
    fn a_long_file_is_found_and_its_tests_do_not_count() {
        let code = "const A: u8 = 0;\n".repeat(601);
        assert_eq!(check(&Source::new("src/engine/a.rs", &code)).len(), 1);
        let tested = format!("const A: u8 = 0;\n#[cfg(test)]\nmod tests {{\n{code}}}\n");
        assert_eq!(check(&Source::new("src/engine/a.rs", &tested)), []);
    }
}
