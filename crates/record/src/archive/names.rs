//! Names of streams as names of HDF5 links, and back: `/`, `%`, control characters and names of dots alone are escaped
//! as in URLs.

use caudal_store::StreamId;

/// The groups in which a stream stands: of all streams of its space, and its own.
pub(super) fn groups(id: &StreamId) -> (String, String) {
    (format!("{}s", escape(&id.space)), escape(&id.name))
}

/// The name that a link of this name stands for.
pub(super) fn unescape(link: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(link.len());
    let mut rest = link.as_bytes();
    while let [byte, after @ ..] = rest {
        rest = after;
        if *byte == b'%' {
            let (digits, after) = rest.split_at_checked(2)?;
            bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
            rest = after;
        } else {
            bytes.push(*byte);
        }
    }
    String::from_utf8(bytes).ok()
}

fn escape(name: &str) -> String {
    let dots = name.bytes().all(|byte| byte == b'.');
    let mut link = String::with_capacity(name.len());
    for letter in name.chars() {
        match letter {
            '/' | '%' | '\0'..='\x1f' | '\x7f' => link.push_str(&format!("%{:02X}", letter as u32)),
            '.' if dots => link.push_str("%2E"),
            _ => link.push(letter),
        }
    }
    link
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back_and_no_two_become_one() {
        let names = ["a", ".", "..", "a/b", "a%2Fb", "%", "ñandú", "a\nb", "a.b", " ", "💊", "a\0b", "%25"];
        let links: Vec<String> = names.iter().map(|name| escape(name)).collect();
        for (name, link) in names.iter().zip(&links) {
            assert_eq!(unescape(link).as_deref(), Some(*name));
            assert!(!link.contains('/') && !link.contains('\0') && *link != ".", "{link}");
        }
        let different: std::collections::HashSet<_> = links.iter().collect();
        assert_eq!(different.len(), names.len());
        assert_eq!(unescape("%4"), None);
        assert_eq!(unescape("%zz"), None);
    }
}
