"""Public helpers for tests, ours and those of downstream projects: miniatures, checks of a release and of a resume."""

from __future__ import annotations

from t4sa_data.testing.archive import OfficialArchive, make_official_archive
from t4sa_data.testing.check import check_release
from t4sa_data.testing.faults import Fault, Report
from t4sa_data.testing.raw_tweets import RawTweets, make_raw_tweets
from t4sa_data.testing.releases import make_release
from t4sa_data.testing.resume import assert_resume_exact
from t4sa_data.testing.twitter_testing import TwitterTesting, draw_twitter_testing, make_twitter_testing

__all__ = [
    "Fault",
    "OfficialArchive",
    "RawTweets",
    "Report",
    "TwitterTesting",
    "assert_resume_exact",
    "check_release",
    "draw_twitter_testing",
    "make_official_archive",
    "make_raw_tweets",
    "make_release",
    "make_twitter_testing",
]
