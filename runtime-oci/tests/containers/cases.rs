//! The tests, by what they are about.

mod escape;
mod exec;
mod isolation;
mod life;
mod resources;
mod start;
mod survival;
mod unruly;
mod volumes;

use std::pin::Pin;

type Case = fn() -> Pin<Box<dyn Future<Output = ()>>>;

macro_rules! cases {
    ($($module:ident::$name:ident),* $(,)?) => {
        /// All of them.
        pub fn all() -> Vec<(&'static str, Case)> {
            vec![$((stringify!($name), (|| Box::pin($module::$name())) as Case)),*]
        }
    };
}

cases![
    exec::programs_run_beside_the_first,
    exec::a_program_has_what_the_first_process_has,
    exec::what_cannot_be_run_says_why,
    exec::programs_end_with_their_session_and_their_time,
    exec::a_terminal_is_one,
    exec::nothing_of_the_machine_comes_along,
    exec::what_nobody_waits_for_is_never_run,
    exec::a_program_enters_a_group_that_was_divided,
    exec::input_ends_with_an_agent_that_was_killed,
    exec::input_and_output_of_a_container,
    exec::a_container_with_a_terminal,
    exec::who_does_not_read_is_let_go,
    life::a_container_prints_and_exits,
    life::nothing_is_left_of_a_pod,
    life::containers_are_stopped_with_grace_and_without,
    life::a_container_is_made_again_after_its_end,
    life::logs_are_cut_and_rotated,
    start::what_cannot_be_executed_says_why,
    start::image_and_pod_say_who_and_where,
    start::root_is_refused_where_it_must_not_be,
    isolation::namespaces_are_the_pods_own,
    isolation::the_machines_namespaces_where_asked_for,
    isolation::processes_are_shared_where_asked_for,
    isolation::a_killed_first_process_of_shared_ones_is_replaced,
    isolation::keys_of_the_machine_stay_there,
    isolation::one_container_joins_anothers_processes,
    isolation::users_are_the_pods_own,
    isolation::capabilities_and_hidden_paths,
    isolation::privileged_sees_the_machine,
    isolation::system_calls_are_filtered,
    isolation::kernel_parameters_are_the_pods,
    isolation::the_binary_is_out_of_reach,
    isolation::no_descriptor_of_the_shim_comes_along,
    resources::memory_has_a_limit,
    resources::groups_are_the_containers_own,
    resources::processes_have_a_limit,
    resources::processor_time_has_a_limit,
    resources::limits_change_while_it_runs,
    resources::huge_pages_are_those_that_are_asked_for,
    resources::memory_stays_and_who_has_most_is_slowed,
    resources::a_program_has_as_many_descriptors_as_elsewhere,
    resources::an_idle_shim_is_small,
    survival::containers_outlive_the_agent,
    survival::what_was_being_made_is_the_next_agents,
    survival::a_killed_shim_takes_its_pod_with_it,
    survival::a_shim_killed_while_nobody_looks_is_cleaned_up,
    survival::a_removed_directory_ends_the_shim,
    survival::a_killed_parent_of_shims_is_replaced,
    volumes::volumes_are_seen_and_kept_read_only,
    volumes::a_working_directory_is_made_in_a_volume,
    volumes::a_link_in_a_volume_is_not_followed,
    volumes::what_a_container_writes_stays_its_own,
    volumes::mounts_come_and_go_as_they_are_asked_to,
    volumes::what_is_not_shared_is_said,
    volumes::read_only_means_all_below_where_asked_for,
    volumes::an_image_is_a_volume,
    escape::what_covers_is_not_the_containers_to_choose,
    escape::a_terminal_is_put_nowhere_else,
    escape::what_is_written_to_proc_is_written_there,
    escape::no_link_of_the_image_leads_out,
    unruly::a_bomb_of_forks_is_its_pods_alone,
    unruly::what_nobody_waits_for_goes_with_its_container,
    unruly::a_log_without_end_takes_no_more_than_it_may,
    unruly::a_log_on_a_full_disk_goes_on_when_there_is_room,
];
