//! JSON among other words, as models without a JSON mode give it.

/// Brackets and fences beyond which nothing is looked for in an answer.
const MOST: usize = 32;
/// Where models that think aloud come to their answer.
const THOUGHT: &str = "</think>";

/// Parts of a text that may be its JSON, the likeliest first: what stands in fences of Markdown, then each object or list.
pub(super) fn candidates(text: &str) -> impl Iterator<Item = &str> {
    let text = text.rsplit_once(THOUGHT).map_or(text, |(_, answer)| answer);
    fenced(text).take(MOST).chain(bracketed(text))
}

/// What stands in fences; one that is never closed goes to the end.
fn fenced(text: &str) -> impl Iterator<Item = &str> {
    ["```", "~~~"].into_iter().flat_map(move |fence| {
        // Every second part is inside; its first line may name the language.
        text.split(fence).skip(1).step_by(2).map(|part| {
            let named =
                part.split_once('\n').filter(|(name, _)| name.trim().bytes().all(|byte| byte.is_ascii_alphanumeric()));
            named.map_or(part, |(_, rest)| rest).trim()
        })
    })
}

/// What stands in brackets that are closed, from the outside.
fn bracketed(text: &str) -> impl Iterator<Item = &str> {
    let (mut rest, mut left) = (text, MOST);
    std::iter::from_fn(move || {
        loop {
            left = left.checked_sub(1)?;
            let begin = rest.find(['{', '['])?;
            let (found, end) = closed(&rest[begin..]).map_or((None, begin + 1), |end| (Some(end), begin + end));
            let part = found.map(|end| &rest[begin..begin + end]);
            rest = &rest[end..];
            if part.is_some() {
                return part;
            }
        }
    })
}

/// Where the bracket is closed that a text begins with.
fn closed(text: &str) -> Option<usize> {
    let (mut open, mut quoted, mut escaped) = (0usize, false, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'{' | b'[' if !quoted => open += 1,
            b'}' | b']' if !quoted => open -= 1,
            _ => {}
        }
        if open == 0 {
            return Some(at + 1);
        }
    }
    None
}
