//! Names of files: from tenants, which events name, so nothing of them may shape a path.

/// What a file of events ends with.
pub(super) const ENDING: &str = ".ndjson.zst";
/// What a file ends with that is being written.
pub(super) const PART: &str = ".part";
/// Name of the manifest.
pub(super) const MANIFEST: &str = "manifest.json";
/// Longer names are cut: file systems take 255 bytes.
const BYTES_MAX: usize = 120;

/// A tenant as a part of a file name: lower-case letters, digits, `-` and `_` as they are, every other byte as `%2F`.
///
/// Two tenants never share one, on file systems that know no upper case neither.
pub(super) fn of_tenant(tenant: &str) -> String {
    if tenant.is_empty() {
        // No encoded byte looks like it.
        return "%".to_owned();
    }
    let mut name = String::with_capacity(tenant.len());
    for byte in tenant.bytes() {
        if byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_') {
            name.push(char::from(byte));
        } else {
            name.push_str(&format!("%{byte:02X}"));
        }
    }
    if name.len() > BYTES_MAX {
        name.truncate(BYTES_MAX);
        let hash = blake3::hash(tenant.as_bytes()).to_hex();
        name.push('~');
        name.push_str(hash.get(..32).unwrap_or_default());
    }
    name
}

/// Whether a name in a manifest is one of a file beside it.
pub(super) fn is_plain(name: &str) -> bool {
    name.ends_with(ENDING)
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'%' | b'~' | b'.'))
        && !name.starts_with('.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_never_shapes_a_path() {
        for (tenant, name) in [
            ("default", "default"),
            ("../../etc/passwd", "%2E%2E%2F%2E%2E%2Fetc%2Fpasswd"),
            ("..", "%2E%2E"),
            ("/", "%2F"),
            ("", "%"),
            ("A", "%41"),
            ("a b\n", "a%20b%0A"),
            ("é", "%C3%A9"),
            ("%", "%25"),
        ] {
            assert_eq!(of_tenant(tenant), name);
            assert!(is_plain(&format!("{name}{ENDING}")));
        }
        let (one, other) = (
            of_tenant(&"x/".repeat(300)),
            of_tenant(&format!("{}y", "x/".repeat(300))),
        );
        assert!(one.len() < 200 && one != other, "{one}");
    }

    #[test]
    fn a_name_that_leads_elsewhere_is_none_of_ours() {
        for name in [
            "../x.ndjson.zst",
            "/x.ndjson.zst",
            ".ndjson.zst",
            "a/b.ndjson.zst",
            "x.json",
            "",
        ] {
            assert!(!is_plain(name), "{name}");
        }
    }
}
