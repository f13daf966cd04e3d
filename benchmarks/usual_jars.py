"""What the usual way needs of Java and the product does not, from Maven: PostgreSQL's JDBC driver, Spark's Avro."""

import subprocess
from pathlib import Path

import pyspark

from stock_pipeline.local.downloads import find_java, install

JARS = {"org.postgresql:postgresql": "42.7.8", "org.apache.spark:spark-avro_2.13": pyspark.__version__}


def usual_jars() -> Path:
    """Their folder."""

    def fetch(folder: Path) -> None:
        ivy = [find_java(), "-cp", Path(pyspark.__file__).parent / "jars" / "*", "org.apache.ivy.Main"]
        for name, version in JARS.items():
            wanted = ["-dependency", *name.split(":"), version, "-confs", "default", "-notransitive"]
            command = [*ivy, *wanted, "-retrieve", folder / "[artifact].[ext]"]
            subprocess.run([str(part) for part in command], check=True, capture_output=True)

    return install(f"usual-{'-'.join(JARS.values())}", "Java archives of the usual way", fetch)
