"""The version of what each metric means; free of torch, so that it can stand in a plan.

Whoever changes what a metric measures (not how fast) raises its number here: evaluations made before are then
made again. A test holds each metric's value on fixed inputs beside its version.
"""

VERSIONS = {
    "clip_score": 1,
    "frechet": 1,
    "gradualness": 1,
    "knn": 1,
    "lpips": 1,
    "own_picture": 1,
    "psnr": 1,
    "ssim": 1,
}
