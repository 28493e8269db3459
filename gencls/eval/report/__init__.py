"""Reports: of a study, from its folder, and of a paper's tables beside ours."""
