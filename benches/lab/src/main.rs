use lab::scenario::{Run, Scenario as _};

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let scenario = lab::scenarios::ALL.iter().find(|s| s.name() == args[1]).unwrap();
    let only: Vec<&str> = args.get(2).map(|s| s.split(',').collect()).unwrap_or_default();
    for point in scenario.points() {
        println!("{point}");
        for contender in scenario.contenders() {
            if !only.is_empty() && !only.contains(contender) {
                continue;
            }
            #[allow(clippy::disallowed_methods)]
            let start = std::time::Instant::now();
            let out = scenario.run(&Run { point: point.clone(), contender, seed: 1, scale: 1.0 });
            print!("{contender:20} {:.2}s", start.elapsed().as_secs_f64());
            for m in scenario.metrics() {
                print!(" {m}={:.4}", out.metrics.get(m).unwrap_or(&f64::NAN));
            }
            println!();
        }
    }
}
