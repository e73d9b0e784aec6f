-- The table marked, which all views read: the records of runs, and what the runs of all tell of each.

-- broken: it diverged, or HR@10 at the end fell below broken_below, that of recommending by popularity or, where that is not known
-- or the run of the same seed without attack and defense does not reach it either, half of what that run has.
-- superseded: there are runs of a newer version of its attack, defense or model. visual: its model reads images of items.
create table marked as
select *, case when ranking = 'full' then popularity_hr_full_10 else popularity_hr_10 end as popularity_hr,
       case when ranking = 'full' then hr_full_10 else hr_10 end as hr_at_10,
       null::double as broken_below, null::boolean as broken,
       cast(json_extract(scenario_json, '$.num_targets') as integer) as num_targets,
       null::boolean as superseded, null::boolean as visual
from records;

with ended as (select run_id, baseline_id, scenario_id, seed, status, popularity_hr, hr_at_10 from marked)
update marked set broken_below = m.broken_below, broken = m.broken
from (
select r.run_id,
       case when b.hr_at_10 < coalesce(r.popularity_hr, b.hr_at_10 + 1) then b.hr_at_10 / 2 else r.popularity_hr end
       as broken_below,
       r.status = 'diverged' or (r.status = 'ok' and coalesce(r.hr_at_10 < broken_below, false)) as broken
from ended r
left join ended b on b.scenario_id = r.baseline_id and b.seed = r.seed and b.status = 'ok') m
where m.run_id = marked.run_id;

update marked set visual = m.visual, superseded = attack_version < newest_attack
       or coalesce(defense_version, 1) < newest_defense or coalesce(model_version, 1) < newest_model
from (select attack, max(attack_version) as newest_attack from marked group by attack) a,
     (select defense, max(coalesce(defense_version, 1)) as newest_defense from marked group by defense) d,
     (select model, max(coalesce(model_version, 1)) as newest_model, count(extractor) > 0 as visual from marked group by model) m
where marked.attack = a.attack and marked.defense = d.defense and marked.model = m.model;
