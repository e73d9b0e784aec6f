-- Views over the records of runs. $K is the list length of the ranking, 5, 10, 20 or 30.

create or replace view runs as
select * exclude (popularity_hr, hr_at_10, broken_below, broken, num_targets, superseded, visual) from marked;

-- One row a run. hr is the headline hit ratio: against sampled negatives, or by full ranking, as its protocol says; hr_chosen
-- and ndcg_chosen are by the same ranking at the evaluation that is best on validation items, without any at the last one.
-- The views below leave out what is superseded. Its curve is in runs.
create or replace view headline as
select * exclude (curve, num_targets, superseded, visual),
       er_$K as er, er_in_$K as er_in, er_out_$K as er_out, dr_$K as dr, er_$K_peak as er_peak, er_$K_peak_epoch as er_peak_epoch, er_$K_tail as er_tail,
       num_targets,
       case when ranking = 'full' then hr_full_$H else hr_$H end as hr,
       case when ranking = 'full' then coalesce(hr_full_$H_best, hr_full_$H) else hr_$H end as hr_chosen,
       case when ranking = 'full' then coalesce(ndcg_full_$H_best, ndcg_full_$H) else ndcg_$H end as ndcg_chosen,
       superseded, visual
from marked;

-- One row for each evaluation of each run.
create or replace view curves as
select run_id, scenario_id, seed, dataset, model, attack, defense, malicious_ratio, point.*
from (select *, unnest(curve) as point from marked);

-- Attacked runs beside their clean twin of the same seed: what the attack gains, and what it costs in quality. er_earned is 0 of
-- a broken run: who ruins a recommender has promoted nothing. er_in and er_out: inside and outside of the subgroup of users that
-- the protocol names. Attacks that promote on models that read images are in visual_attacks.
create or replace view attacks as
select r.run_id, r.scenario_id, r.seed, r.suite, r.status, r.error,
       r.dataset, r.split, r.model, r.protocol, r.protocol_params, r.model_params, r.malicious_ratio, r.target,
       r.num_targets, r.target_items, r.defense, r.defense_params, r.attack, r.attack_version, r.attack_params, r.attack_goal,
       array_to_string(r.attack_knowledge, ', ') as knowledge,
       r.num_users, r.num_malicious,
       r.er, case when r.broken then 0 else r.er end as er_earned, r.er_peak, r.er_tail, r.er_in, r.er_out,
       r.hr, c.hr as clean_hr, r.hr - c.hr as hr_change, r.broken, r.refused_uploads, r.warnings, r.isolation
from headline r
left join headline c on c.scenario_id = r.clean_id and c.seed = r.seed and c.status = 'ok'
where r.attack <> 'none' and not r.superseded and not (r.visual and r.attack_goal = 'promote');

-- Attacked and defended runs beside the undefended twin; hr_loss is that of the two clean twins of the same seed, and
-- hr_loss_attacked what the attacked run has less than the undefended twin. A run that is broken prevents nothing: it counts
-- with the exposure of its twin or, where that is higher, with its own; and one beside a broken twin has none. A run that
-- diverged has lost the whole hit ratio. cost_ms is the extra training time of a round, where both runs had the same hardware
-- and number of threads.
create or replace view defenses as
select r.run_id, r.scenario_id, r.seed, r.status, r.dataset, r.split, r.model, r.protocol, r.protocol_params,
       r.model_params, r.malicious_ratio, r.target, r.num_targets,
       r.attack, r.attack_params, r.attack_goal, array_to_string(r.attack_knowledge, ', ') as knowledge,
       r.defense, r.defense_params, r.defense_family, array_to_string(r.defense_knowledge, ', ') as defense_knowledge, r.defense_assumes,
       u.er as er_undefended,
       case when r.broken then greatest(u.er, r.er) when r.status = 'ok' then r.er end as er_defended,
       case when r.status <> 'failed' then coalesce(r.er_peak, r.er) end as er_peak,
       u.er - er_defended as er_reduction,
       b.hr as hr_baseline, case d.status when 'diverged' then 0 else d.hr end as hr_defended, b.hr - hr_defended as hr_loss,
       case r.status when 'ok' then r.hr when 'diverged' then 0 end as hr_attacked,
       u.hr as hr_undefended, u.hr - hr_attacked as hr_loss_attacked,
       r.broken, r.refused_uploads, r.warnings, r.isolation,
       d.broken as clean_broken, d.defense_params as clean_params,
       case when r.status = 'ok' and r.rounds > 0 and u.rounds > 0
                 and r.device = u.device and r.device_name = u.device_name and r.threads = u.threads
            then 1000 * (r.seconds_train / r.rounds - u.seconds_train / u.rounds) end as cost_ms
from headline r
left join headline u on u.scenario_id = r.undefended_id and u.seed = r.seed and u.status = 'ok' and not u.broken
left join headline d on d.scenario_id = r.clean_id and d.seed = r.seed and d.status in ('ok', 'diverged')
left join headline b on b.scenario_id = r.baseline_id and b.seed = r.seed and b.status = 'ok'
where r.attack <> 'none' and r.defense <> 'none' and not r.superseded and not (r.visual and r.attack_goal = 'promote');

-- Headline quality where a run that diverged has none left, and a run that failed has no number.
create or replace view quality as
select * replace (
       case status when 'ok' then hr when 'diverged' then 0 end as hr,
       case status when 'ok' then hr_chosen when 'diverged' then 0 end as hr_chosen,
       case status when 'ok' then ndcg_chosen when 'diverged' then 0 end as ndcg_chosen)
from headline;

-- Runs under an untargeted attack beside their clean twin of the same seed: the shares of HR@K and NDCG@K that it takes, at the
-- chosen evaluation and (hr_loss_end) at the last one. A run that diverged has earned nothing: a server that finds its model not
-- to be finite goes back to one that is, and knows that it is attacked. One below popularity has earned what it took.
create or replace view untargeted_attacks as
select r.run_id, r.scenario_id, r.seed, r.suite, r.status, r.error,
       r.dataset, r.split, r.model, r.protocol, r.protocol_params, r.model_params, r.malicious_ratio, r.target,
       r.num_targets, r.num_users, r.num_malicious,
       r.defense, r.defense_params, r.attack, r.attack_version, r.attack_params, r.attack_goal,
       array_to_string(r.attack_knowledge, ', ') as knowledge, r.best_epoch,
       r.hr_chosen as hr, c.hr_chosen as clean_hr, r.ndcg_chosen as ndcg, c.ndcg_chosen as clean_ndcg,
       cast(r.status = 'ok' as int) * (1 - r.hr_chosen / nullif(c.hr_chosen, 0)) as hr_loss,
       cast(r.status = 'ok' as int) * (1 - r.ndcg_chosen / nullif(c.ndcg_chosen, 0)) as ndcg_loss,
       cast(r.status = 'ok' as int) * (1 - r.hr / nullif(c.hr, 0)) as hr_loss_end,
       r.broken, r.refused_uploads, r.warnings, r.isolation
from quality r
left join quality c on c.scenario_id = r.clean_id and c.seed = r.seed and c.status = 'ok'
where r.attack_goal = 'degrade' and not r.superseded;

-- Defended runs under an untargeted attack, all as shares of the baseline's HR@K (no attack, no defense, same seed): what the
-- defense brings back, what it costs without the attack, and what is still lost, at the chosen evaluation and (_end) at the last one.
create or replace view untargeted_defenses as
select r.run_id, r.scenario_id, r.seed, r.status, r.dataset, r.split, r.model, r.protocol, r.protocol_params,
       r.model_params, r.malicious_ratio, r.target, r.num_targets,
       r.attack, r.attack_params, r.attack_goal, array_to_string(r.attack_knowledge, ', ') as knowledge,
       r.defense, r.defense_params, r.defense_family, array_to_string(r.defense_knowledge, ', ') as defense_knowledge, r.defense_assumes,
       b.hr_chosen as hr_baseline, u.hr_chosen as hr_undefended, r.hr_chosen as hr_defended, d.hr_chosen as hr_clean,
       (hr_defended - hr_undefended) / nullif(hr_baseline, 0) as hr_recovered,
       (hr_baseline - hr_clean) / nullif(hr_baseline, 0) as hr_cost,
       1 - hr_undefended / nullif(hr_baseline, 0) as hr_lost, 1 - hr_defended / nullif(hr_baseline, 0) as hr_left,
       (r.hr - u.hr) / nullif(b.hr, 0) as hr_recovered_end, (b.hr - d.hr) / nullif(b.hr, 0) as hr_cost_end,
       1 - r.hr / nullif(b.hr, 0) as hr_left_end, r.hr_chosen as hr_attacked,
       r.broken, r.refused_uploads, r.warnings, r.isolation, d.broken as clean_broken, d.defense_params as clean_params, t.cost_ms
from quality r
left join quality u on u.scenario_id = r.undefended_id and u.seed = r.seed and u.status = 'ok'
left join quality d on d.scenario_id = r.clean_id and d.seed = r.seed and d.status in ('ok', 'diverged')
left join quality b on b.scenario_id = r.baseline_id and b.seed = r.seed and b.status = 'ok'
left join (select run_id, cost_ms from defenses) t on t.run_id = r.run_id
where r.attack_goal = 'degrade' and r.defense <> 'none' and not r.superseded;

-- Attacks that promote on models that read images, beside their clean twin of the same seed. eps is the bound of an attack
-- on images, which is no part of attack_params here; ndcg_loss is the share of NDCG@20 that the attack takes, by the ranking of
-- the protocol; image_*: of the images last shown of the targets, against the original ones.
create or replace view visual_attacks as
select r.run_id, r.scenario_id, r.seed, r.suite, r.status, r.error,
       r.dataset, r.split, r.model, r.protocol, r.protocol_params, r.model_params, r.malicious_ratio, r.target,
       r.num_targets, r.target_items, r.defense, r.defense_params, r.attack, r.attack_version,
       json_merge_patch(r.attack_params, '{"eps": null}')::varchar as attack_params,
       cast(json_extract(r.attack_params, '$.eps') as double) as eps, r.attack_goal,
       array_to_string(r.attack_knowledge, ', ') as knowledge,
       r.er, case when r.broken then 0 else r.er end as er_earned, r.er_peak, r.er_tail,
       r.hr, c.hr as clean_hr, r.hr - c.hr as hr_change, r.broken, r.refused_uploads, r.warnings, r.isolation,
       case when r.ranking = 'full' then r.ndcg_full_20 else r.ndcg_20 end as ndcg,
       case when c.ranking = 'full' then c.ndcg_full_20 else c.ndcg_20 end as clean_ndcg,
       1 - ndcg / nullif(clean_ndcg, 0) as ndcg_loss,
       r.image_change, r.image_psnr, r.image_ssim, r.image_cosine
from headline r
left join headline c on c.scenario_id = r.clean_id and c.seed = r.seed and c.status = 'ok'
where r.visual and r.attack_goal = 'promote' and not r.superseded;

-- Their defended runs beside the undefended twin, and (ndcg_loss) the share of NDCG@20 that the defense takes without an attack,
-- between the two clean twins of the same seed; runs that diverged count as in the view defenses. clean_similarity_*: cosine of
-- features of clean images before and after the defense; detection_*: how well it tells the attack's images from them.
create or replace view visual_defenses as
select r.run_id, r.scenario_id, r.seed, r.status, r.dataset, r.split, r.model, r.protocol, r.protocol_params,
       r.model_params, r.malicious_ratio, r.target, r.num_targets,
       r.attack, json_merge_patch(r.attack_params, '{"eps": null}')::varchar as attack_params,
       cast(json_extract(r.attack_params, '$.eps') as double) as eps, r.attack_goal,
       array_to_string(r.attack_knowledge, ', ') as knowledge, r.defense, r.defense_params,
       r.defense_family, array_to_string(r.defense_knowledge, ', ') as defense_knowledge, r.defense_assumes,
       u.er as er_undefended,
       case when r.broken then greatest(u.er, r.er) when r.status = 'ok' then r.er end as er_defended,
       case when r.status <> 'failed' then coalesce(r.er_peak, r.er) end as er_peak,
       u.er - er_defended as er_reduction,
       case when b.ranking = 'full' then b.ndcg_full_20 else b.ndcg_20 end as ndcg_baseline,
       case when d.status = 'diverged' then 0 when d.ranking = 'full' then d.ndcg_full_20 else d.ndcg_20 end as ndcg_defended,
       1 - ndcg_defended / nullif(ndcg_baseline, 0) as ndcg_loss,
       u.hr as hr_undefended, case r.status when 'ok' then r.hr when 'diverged' then 0 end as hr_attacked,
       case when r.status = 'diverged' then 0 when r.ranking = 'full' then r.ndcg_full_20 else r.ndcg_20 end as ndcg_attacked,
       (case when u.ranking = 'full' then u.ndcg_full_20 else u.ndcg_20 end - ndcg_attacked) / nullif(ndcg_baseline, 0)
       as ndcg_loss_attacked,
       r.broken, r.refused_uploads, r.warnings, r.isolation, d.broken as clean_broken, d.defense_params as clean_params,
       case when r.status = 'ok' and r.rounds > 0 and u.rounds > 0
                 and r.device = u.device and r.device_name = u.device_name and r.threads = u.threads
            then 1000 * (r.seconds_train / r.rounds - u.seconds_train / u.rounds) end as cost_ms,
       r.clean_similarity_mean, r.clean_similarity_min, r.detection_auc, r.detection_recall_zero_fp, r.detection_recall,
       r.detection_false_positive_rate
from headline r
left join headline u on u.scenario_id = r.undefended_id and u.seed = r.seed and u.status = 'ok' and not u.broken
left join headline d on d.scenario_id = r.clean_id and d.seed = r.seed and d.status in ('ok', 'diverged')
left join headline b on b.scenario_id = r.baseline_id and b.seed = r.seed and b.status = 'ok'
where r.visual and r.attack_goal = 'promote' and r.defense <> 'none' and not r.superseded;

-- Runs under an attack that demotes beside their clean twin of the same seed. dr is the share of the users to whom the twin shows a
-- target that the attacked run does not show it to, null where it shows none to anybody; dr_earned is 0 of a broken run: who ruins
-- a recommender has demoted nothing.
create or replace view demotion_attacks as
select r.run_id, r.scenario_id, r.seed, r.suite, r.status, r.error,
       r.dataset, r.split, r.model, r.protocol, r.protocol_params, r.model_params, r.malicious_ratio, r.target,
       r.num_targets, r.target_items, r.defense, r.defense_params, r.attack, r.attack_version, r.attack_params, r.attack_goal,
       array_to_string(r.attack_knowledge, ', ') as knowledge,
       r.dr, case when r.broken and c.er > 0 then 0 when r.status = 'ok' then r.dr end as dr_earned, r.er, c.er as clean_er,
       r.hr, c.hr as clean_hr, r.hr - c.hr as hr_change, r.broken, r.refused_uploads, r.warnings, r.isolation
from headline r
left join headline c on c.scenario_id = r.clean_id and c.seed = r.seed and c.status = 'ok'
where r.attack_goal = 'demote' and not r.superseded;

-- Their defended runs beside the undefended twin; each dr is against the clean twin under the same defense. Broken runs, and
-- losses, count as in the view defenses.
create or replace view demotion_defenses as
select d.* exclude (er_undefended, er_defended, er_peak, er_reduction),
       u.dr as dr_undefended,
       case when r.broken then greatest(u.dr, r.dr) when r.status = 'ok' then r.dr end as dr_defended,
       u.dr - dr_defended as dr_reduction
from defenses d
join headline r on r.run_id = d.run_id
left join headline u on u.scenario_id = r.undefended_id and u.seed = r.seed and u.status = 'ok' and not u.broken
where d.attack_goal = 'demote';
