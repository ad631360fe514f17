//! Where in a stack a runtime polls a task.

use super::part::Part;

/// The call by which a runtime polls the task that its worker is in.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct PollSite {
    /// Where the worker goes on when the poll returns. It passes there once for each poll that this call makes.
    pub(super) return_address: usize,
    /// Where the function stands that tokio compiled for this type of task: another one is another task.
    /// `None` for the future of `block_on`, which is no task.
    pub(super) task: Option<usize>,
}

/// A function in a stack: where it stands, whether that is behind a call, and what it belongs to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Function {
    pub(super) address: usize,
    pub(super) is_return: bool,
    pub(super) part: Option<Part>,
}

/// The outermost poll of a task in a stack, whose functions come innermost first.
///
/// Outermost, because code in a task may run a runtime of its own, and because it may call the scheduler
/// (to wake another task, say): both are within the poll. The thread of a worker is itself a task, of the
/// pool of threads; that one is outside of every worker.
pub(super) fn outermost_poll(functions: &[Function]) -> Option<PollSite> {
    let mut scheduler: Option<&Function> = None;
    let mut block_on: Option<&Function> = None;
    for function in functions.iter().rev() {
        match function.part {
            Some(Part::Task) if scheduler.is_some() => {
                return site(scheduler?, Some(function.address));
            }
            Some(Part::BlockOn) => (scheduler, block_on) = (Some(function), Some(function)),
            Some(Part::Worker | Part::Scheduler | Part::LocalSet) => scheduler = Some(function),
            _ => {}
        }
    }
    // No task is polled: it is the future of `block_on`, or the worker is between two polls.
    site(block_on?, None)
}

/// The innermost function has not called anything: it returns to nowhere.
fn site(scheduler: &Function, task: Option<usize>) -> Option<PollSite> {
    scheduler.is_return.then_some(PollSite {
        return_address: scheduler.address,
        task,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Innermost first; addresses are positions, and only the first is not behind a call.
    fn outermost(parts: &[Option<Part>]) -> Option<PollSite> {
        let function = |(address, part): (usize, &Option<Part>)| Function {
            address,
            is_return: address > 0,
            part: *part,
        };
        let functions: Vec<_> = parts.iter().enumerate().map(function).collect();
        outermost_poll(&functions)
    }

    const USER: Option<Part> = None;
    const TASK: Option<Part> = Some(Part::Task);
    const WORKER: Option<Part> = Some(Part::Worker);
    const POOL: Option<Part> = Some(Part::Pool);
    const SCHEDULER: Option<Part> = Some(Part::Scheduler);
    const BLOCK_ON: Option<Part> = Some(Part::BlockOn);
    const LOCAL_SET: Option<Part> = Some(Part::LocalSet);

    fn site(return_address: usize, task: Option<usize>) -> Option<PollSite> {
        Some(PollSite {
            return_address,
            task,
        })
    }

    #[test]
    fn poll_of_a_worker_returns_to_the_function_around_its_task() {
        let stack = [USER, TASK, TASK, WORKER, WORKER, TASK, POOL];
        assert_eq!(outermost(&stack), site(3, Some(2)));
    }

    #[test]
    fn scheduler_called_by_a_task_is_within_its_poll() {
        let stack = [USER, WORKER, USER, TASK, WORKER, TASK, POOL];
        assert_eq!(outermost(&stack), site(4, Some(3)));
    }

    #[test]
    fn runtime_inside_a_task_is_within_its_poll() {
        let stack = [USER, TASK, SCHEDULER, BLOCK_ON, USER, TASK, WORKER, POOL];
        assert_eq!(outermost(&stack), site(6, Some(5)));
    }

    #[test]
    fn worker_between_two_polls_polls_nothing() {
        assert_eq!(outermost(&[USER, WORKER, WORKER, TASK, POOL]), None);
        assert_eq!(outermost(&[WORKER, TASK, POOL]), None);
        assert_eq!(outermost(&[USER, USER]), None);
    }

    #[test]
    fn runtime_of_the_current_thread_polls_its_tasks_its_future_and_those_of_local_sets() {
        let stack = [USER, TASK, SCHEDULER, SCHEDULER, BLOCK_ON];
        assert_eq!(outermost(&stack), site(2, Some(1)));
        assert_eq!(outermost(&[USER, USER, BLOCK_ON, BLOCK_ON]), site(2, None));
        let stack = [USER, TASK, LOCAL_SET, USER, BLOCK_ON, SCHEDULER];
        assert_eq!(outermost(&stack), site(2, Some(1)));
        // Its own future wakes a task.
        assert_eq!(outermost(&[SCHEDULER, USER, BLOCK_ON]), site(2, None));
    }

    #[test]
    fn future_of_block_on_that_is_inlined_and_calls_nothing_has_no_site() {
        assert_eq!(outermost(&[BLOCK_ON, SCHEDULER]), None);
    }
}
