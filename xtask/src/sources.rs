//! Lengths of files and functions, and the line that says what a file is.

use std::path::Path;

use anyhow::Context as _;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

/// Lines of a source file, its tests apart.
const FILE_LINES_MAX: usize = 500;
/// Lines of a function, from its name to its closing brace.
const FUNCTION_LINES_MAX: usize = 60;

/// What is wrong with a source file.
pub(crate) fn check(root: &Path, file: &Path) -> anyhow::Result<Vec<String>> {
    let text = std::fs::read_to_string(file)?;
    let name = file.strip_prefix(root).unwrap_or(file).display().to_string();
    let mut findings = Vec::new();
    if !text.starts_with("//!") {
        findings.push(format!("{name}: does not begin with //! and what it is"));
    }
    if is_test(&name) {
        return Ok(findings);
    }
    let parsed = syn::parse_file(&text).with_context(|| name.clone())?;
    let mut walk = Walk { name: &name, test_lines: 0, findings: &mut findings };
    walk.visit_file(&parsed);
    let lines = text.lines().count() - walk.test_lines;
    if lines > FILE_LINES_MAX {
        findings.push(format!("{name}: {lines} lines, more than {FILE_LINES_MAX}"));
    }
    Ok(findings)
}

fn is_test(name: &str) -> bool {
    name.ends_with("_test.rs") || name.ends_with("/tests.rs") || name.contains("/tests/")
}

struct Walk<'a> {
    name: &'a str,
    test_lines: usize,
    findings: &'a mut Vec<String>,
}

impl Walk<'_> {
    fn function(&mut self, signature: &syn::Signature, block: &syn::Block) {
        let lines = block.span().end().line + 1 - signature.span().start().line;
        if lines > FUNCTION_LINES_MAX {
            let function = &signature.ident;
            self.findings.push(format!("{}: {function} has {lines} lines, more than {FUNCTION_LINES_MAX}", self.name));
        }
    }
}

impl<'ast> Visit<'ast> for Walk<'_> {
    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        let is_test = module.attrs.iter().any(|attribute| {
            attribute.path().is_ident("cfg")
                && attribute.parse_args::<syn::Path>().is_ok_and(|path| path.is_ident("test"))
        });
        if is_test {
            self.test_lines += module.span().end().line + 1 - module.span().start().line;
        } else {
            visit::visit_item_mod(self, module);
        }
    }

    fn visit_item_fn(&mut self, function: &'ast syn::ItemFn) {
        self.function(&function.sig, &function.block);
        visit::visit_item_fn(self, function);
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        self.function(&function.sig, &function.block);
        visit::visit_impl_item_fn(self, function);
    }

    fn visit_trait_item_fn(&mut self, function: &'ast syn::TraitItemFn) {
        if let Some(block) = &function.default {
            self.function(&function.sig, block);
        }
        visit::visit_trait_item_fn(self, function);
    }
}
