//! Lines that are repeated: `~SEQ(NAME, START, STEP, END)` and `~LST(NAME, VALUE, …)`.

use super::source::is_name;

/// One round of a `~SEQ` or `~LST`.
pub(super) struct Round {
    pub values: Vec<(String, String)>,
    pub rest: String,
}

/// Most rounds of one sequence.
const MAX_ROUNDS: i64 = 65_536;

/// Reads the list that stands at the begin of a line.
///
/// # Errors
/// What is wrong with it, in words.
pub(super) fn repeat(text: &str) -> Result<Vec<Round>, String> {
    let open = text.find('(').ok_or("there is no list in brackets")?;
    let close = text
        .find(')')
        .filter(|&close| close > open)
        .ok_or("there is no list in brackets")?;
    let (kind, list, rest) = (
        &text[..open],
        &text[open + 1..close],
        text[close + 1..].trim(),
    );
    let rounds = match kind {
        "~SEQ" | "~SEQx" => sequence(list, kind == "~SEQx")?,
        "~LST" => listed(list)?,
        _ => return Err("~SEQ, ~SEQx and ~LST repeat lines".to_string()),
    };
    Ok(rounds
        .into_iter()
        .map(|values| Round {
            values,
            rest: rest.to_string(),
        })
        .collect())
}

/// Names with their values, in one round.
type Values = Vec<(String, String)>;

fn sequence(list: &str, hexadecimal: bool) -> Result<Vec<Values>, String> {
    let items: Vec<&str> = list.split(',').map(str::trim).collect();
    let number = |text: &str| -> Result<i64, String> {
        let (sign, digits) = match text.strip_prefix('-') {
            Some(digits) => (-1, digits),
            None => (1, text),
        };
        let value = match digits.strip_prefix("0x") {
            Some(digits) => i64::from_str_radix(digits, 16),
            None => digits.parse(),
        };
        let value = value
            .ok()
            .filter(|v| v.unsigned_abs() <= u64::from(u32::MAX));
        value
            .map(|v| v * sign)
            .ok_or(format!("'{text}' is not a number"))
    };
    let (name, start, step, end) = match items[..] {
        [name, end] => (name, None, None, number(end)?),
        [name, start, end] => (name, Some(number(start)?), None, number(end)?),
        [name, start, step, end] => (
            name,
            Some(number(start)?),
            Some(number(step)?),
            number(end)?,
        ),
        _ => return Err("a sequence is written ~SEQ(NAME, START, STEP, END)".to_string()),
    };
    let start = start.unwrap_or(if end > 0 { 1 } else { -1 });
    let step = step.unwrap_or(if end >= start { 1 } else { -1 });
    if step == 0 || name.is_empty() || !name.chars().all(is_name) {
        return Err("a sequence has a name and a step that is not 0".to_string());
    }
    if (end - start) / step >= MAX_ROUNDS {
        return Err(format!("a sequence has at most {MAX_ROUNDS} values"));
    }
    let mut all = Vec::new();
    let mut value = start;
    while (step > 0 && value <= end) || (step < 0 && value >= end) {
        let text = match hexadecimal {
            true => format!("{value:x}"),
            false => value.to_string(),
        };
        all.push(vec![(name.to_string(), text)]);
        value += step;
    }
    Ok(all)
}

fn listed(list: &str) -> Result<Vec<Values>, String> {
    let mut items = groups(list).into_iter();
    let names = items.next().unwrap_or_default();
    if names.is_empty()
        || names
            .iter()
            .any(|name| name.is_empty() || !name.chars().all(is_name))
    {
        return Err(
            "a list is written ~LST(NAME, VALUE, VALUE) or ~LST({A, B}, {1, 2}, {3, 4})"
                .to_string(),
        );
    }
    items
        .map(|values| match values.len() == names.len() {
            true => Ok(names.iter().cloned().zip(values).collect()),
            false => Err(format!(
                "a list of {} names has {} values",
                names.len(),
                values.len()
            )),
        })
        .collect()
}

/// What stands between commas; `{a, b}` is one of several.
fn groups(list: &str) -> Vec<Vec<String>> {
    let mut all = Vec::new();
    let mut rest = list.trim();
    while !rest.is_empty() {
        let (group, after) = match rest
            .strip_prefix('{')
            .and_then(|inner| inner.split_once('}'))
        {
            Some((inner, after)) => {
                let values = inner.split(',').map(|v| v.trim().to_string());
                (
                    values.collect(),
                    after.trim_start().strip_prefix(',').unwrap_or(after),
                )
            }
            None => {
                let (value, after) = rest.split_once(',').unwrap_or((rest, ""));
                (vec![value.trim().to_string()], after)
            }
        };
        all.push(group);
        rest = after.trim();
    }
    all
}
