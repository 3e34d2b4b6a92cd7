import restate_django.indexes
from django.db import migrations


class Migration(migrations.Migration):

    dependencies = [
        ('restate_django', '0003_job_runs'),
    ]

    operations = [
        migrations.AddIndex(
            model_name='invocation',
            index=restate_django.indexes.SparseIndex(by='next_attempt_at', fields=['connection', 'next_attempt_at'], name='restate_inv_conn_attempt'),
        ),
        migrations.AddIndex(
            model_name='invocation',
            index=restate_django.indexes.SparseIndex(by='next_poll_at', fields=['connection', 'next_poll_at'], name='restate_inv_conn_poll'),
        ),
    ]
