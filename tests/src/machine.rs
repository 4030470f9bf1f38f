//! What the machine does to packets whoever they belong to: processors' backlogs are common to all namespaces, so that
//! somebody else's flood loses packets of a lab.

/// Packets that the processors have dropped because their backlogs were full (the second column of
/// /proc/net/softnet_stat).
pub fn dropped() -> u64 {
    let text = std::fs::read_to_string("/proc/net/softnet_stat").expect("every kernel has it");
    text.lines()
        .filter_map(|line| line.split_whitespace().nth(1))
        .map(|count| u64::from_str_radix(count, 16).expect("hexadecimal digits"))
        .sum()
}

/// Does something until the machine has dropped no packet meanwhile, at most ten times. Gives its last outcome.
pub fn undisturbed<T>(mut work: impl FnMut() -> T) -> T {
    for _ in 0..9 {
        let before = dropped();
        let outcome = work();
        if dropped() == before {
            return outcome;
        }
        std::thread::sleep(std::time::Duration::from_millis(500));
    }
    work()
}
