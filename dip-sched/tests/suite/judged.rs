//! Plans that a judge has chosen.

use dip_core::{Budget, Environment, Plan, PlanJudge, Schedule, Seconds, Timeline, check_plan};
use dip_sched::Dip;

use crate::generate::{Generator, two_chunks};

/// Judges orders by their timelines under noise.
struct Noisy;

impl PlanJudge for Noisy {
    fn scenarios(&self) -> u32 {
        16
    }

    fn expected(&self, plan: &Plan, scenarios: u32) -> Seconds {
        let makespan = |scenario: u32| {
            let (mut graph, mut random) = (plan.graph.clone(), Generator(scenario.into()));
            for task in &mut graph.tasks {
                task.duration_s = task.duration_s * random.log_normal(0.1);
            }
            Timeline::evaluate(&graph, &plan.order).unwrap().makespan
        };
        (0..scenarios).map(makespan).sum::<Seconds>() / f64::from(scenarios)
    }

    fn deviation(&self) -> f64 {
        0.1
    }
}

#[test]
fn a_judged_plan_is_valid_reproducible_and_better_in_its_scenarios() {
    let graph = two_chunks(4, 12, false, true);
    let plan = |judge: Option<&'static dyn PlanJudge>, threads| {
        let env = Environment {
            budget: Budget::Iterations(60),
            threads,
            judge,
            ..Environment::default()
        };
        Dip.plan(&graph, &env).unwrap()
    };
    let (plain, judged) = (plan(None, 1), plan(Some(&Noisy), 1));
    assert!(check_plan(&judged).is_empty(), "{:?}", check_plan(&judged));
    assert_eq!(judged.to_json(), plan(Some(&Noisy), 3).to_json());
    let expected = |plan: &Plan| Noisy.expected(plan, Noisy.scenarios()).0;
    assert!(expected(&judged) <= expected(&plain), "{} {}", expected(&judged), expected(&plain));
    assert!(judged.predicted.makespan_s.0 <= 1.012 * plain.predicted.makespan_s.0);
}
